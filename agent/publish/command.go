package publish

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"time"

	"github.com/stagedoor/stagedoor/internal/printable"
)

// A Command is run for every report, with the report as JSON on its standard input and the variables of [Report.Variables] in its
// environment. What it prints is seen only if it fails.
type Command struct {
	Args []string // with the program
	Env  []string // the environment besides, in the form of os.Environ
}

// Name is part of Sink.
func (c *Command) Name() string { return "command " + c.Args[0] }

// Publish is part of Sink.
func (c *Command) Publish(ctx context.Context, r Report) error {
	input, err := json.Marshal(r)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, c.Args[0], c.Args[1:]...)
	cmd.Env = append([]string{}, c.Env...)
	for _, v := range r.Variables() {
		cmd.Env = append(cmd.Env, v.Name+"="+v.Value)
	}
	cmd.Stdin = bytes.NewReader(input)
	cmd.WaitDelay = time.Second // for what it leaves behind, which may hold its output
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, printable.Text(string(out), 200))
	}
	return nil
}
