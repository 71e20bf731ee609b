package agent

import (
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"

	"github.com/stagedoor/stagedoor/auth"
	"github.com/stagedoor/stagedoor/internal/printable"
)

// plainCommand matches what every shell splits into the same words. What holds anything else is for the shell.
var plainCommand = regexp.MustCompile(`^stagedoor( +[A-Za-z0-9._=:/,@+-]+)+ *$`)

// verbOf returns the words behind stagedoor of a command that is a verb.
func verbOf(command string) []string {
	command = strings.TrimSpace(command)
	if !plainCommand.MatchString(command) {
		return nil
	}
	words := strings.Fields(command)[1:]
	if !IsVerb(words[0]) {
		return nil
	}
	return words
}

// runVerb answers a verb in the place of a program: there may be no shell to run one. It is no visit.
func (s *session) runVerb(words []string) exit {
	g := s.guest
	if err := g.allowControl(words[0]); err != nil {
		g.refused("refused a verb", words[0], err)
		fmt.Fprintf(s.ch.Stderr(), "stagedoor: %v\r\n", err)
		return exit{status: 1}
	}
	if words[0] == "rerun" { // else it would run as a program
		_, _, err := s.rerun()
		if err == nil {
			err = unexpected(words[1:])
		}
		fmt.Fprintf(s.ch.Stderr(), "stagedoor: %v\r\n", err)
		return exit{status: 1}
	}
	g.log.Info("verb", "verb", strings.Join(words, " "))
	stdout, stderr := io.Writer(s.ch), io.Writer(s.ch.Stderr())
	if s.term != nil { // nothing else turns the ends of lines into what a terminal needs
		stdout, stderr = newlines{stdout}, newlines{stderr}
	}
	by := printable.Text(g.identity(), maxFarewell)
	return exit{status: RunVerb(g.ctx, asUser{g.server.agent, by}, words, stdout, stderr)}
}

// allowControl says whether the guest may use verbs.
func (g *guest) allowControl(verb string) error {
	if !g.mayControl() {
		return fmt.Errorf("%w: %s needs the permission %s, which you were not granted", auth.ErrDenied, verb, auth.ShortPermission(auth.PermitControl))
	}
	return nil
}

// newlines writes \r\n for \n.
type newlines struct{ io.Writer }

func (w newlines) Write(p []byte) (int, error) {
	_, err := io.WriteString(w.Writer, strings.ReplaceAll(string(p), "\n", "\r\n"))
	return len(p), err
}

// rerun is the command of the job, to be run again.
func (s *session) rerun() ([]string, string, error) {
	if err := s.guest.allowControl("rerun"); err != nil {
		return nil, "", err
	}
	status := s.guest.server.agent.status()
	if status.Command == nil || len(status.Command.Args) == 0 {
		return nil, "", errors.New("no command is known that could be run again")
	}
	return status.Command.Args, status.Command.Dir, nil
}
