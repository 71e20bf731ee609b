package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/stagedoor/stagedoor/agent"
	"github.com/stagedoor/stagedoor/agent/ci"
)

// A place is where an agent and those who want something of it meet: a socket in a directory of the user's own, and beside it a
// file with what the agent published last.
type place struct {
	base string
	lock *os.File // held as long as the agent lives; nil for a place that nobody else knows
}

func (p place) socket() string { return p.base + ".sock" }
func (p place) report() string { return p.base + ".json" }
func (p place) log() string    { return p.base + ".log" }

// maxSocketPath is what fits into a sockaddr_un everywhere: 104 bytes on macOS, with the zero at their end.
const maxSocketPath = 103

// placeOf is the same in all steps of a job, and another one in any other job on this machine. Outside of a CI system, a user has
// one.
func placeOf(system *ci.System) (place, error) {
	dir := filepath.Join(os.TempDir(), "stagedoor-"+strconv.Itoa(os.Getuid()))
	name := "agent"
	if system.ID != "" {
		sum := sha256.Sum256([]byte(system.ID))
		name = hex.EncodeToString(sum[:8])
	}
	if len(filepath.Join(dir, name+".sock")) > maxSocketPath {
		dir = filepath.Join("/tmp", filepath.Base(dir))
	}
	if err := privateDir(dir); err != nil {
		return place{}, err
	}
	return place{base: filepath.Join(dir, name)}, nil
}

// privateDir makes a directory, or checks that the one that is there is nobody else's: where everybody may make one, others could
// have been faster.
func privateDir(dir string) error {
	if err := os.Mkdir(dir, 0o700); err == nil || !errors.Is(err, os.ErrExist) {
		return err
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	if !info.IsDir() || !ownedByUser(info) || info.Mode().Perm()&0o077 != 0 {
		return fmt.Errorf("%s belongs to somebody else, or others may write there: remove it, or set TMPDIR", dir)
	}
	return nil
}

// probeTimeout is for an agent on this machine.
const probeTimeout = 5 * time.Second

// answers tells whether an agent does, at a socket.
func answers(ctx context.Context, socket string) bool {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	_, err := agent.DialControl(socket).Status(ctx)
	return !errors.Is(err, agent.ErrNoAgent)
}

// claimPlace returns where a new agent is to be found: the place of the job, or
// one of its own where another agent has that.
func claimPlace(system *ci.System) (place, error) {
	p, err := placeOf(system)
	if err != nil {
		return privatePlace()
	}
	if p.lock, err = lockFile(p.base + ".lock"); err != nil {
		return privatePlace()
	}
	os.Remove(p.socket()) // of one that was killed
	return p, nil
}

// privatePlace is known to those alone who are told.
func privatePlace() (place, error) {
	dir, err := os.MkdirTemp("", "stagedoor-")
	if err == nil && len(dir) > maxSocketPath-len("/agent.sock") {
		os.Remove(dir)
		dir, err = os.MkdirTemp("/tmp", "stagedoor-")
	}
	if err != nil {
		return place{}, fmt.Errorf("make a place for the control socket: %w", err)
	}
	return place{base: filepath.Join(dir, "agent")}, nil
}

// remove takes away what an agent has left.
func (p place) remove() {
	for _, path := range []string{p.socket(), p.report(), p.base + ".lock", filepath.Dir(p.base)} {
		os.Remove(path) // of a directory where another agent is: fails, as it should
	}
	if p.lock != nil {
		p.lock.Close()
	}
}

// findControl returns the control of the agent that serves this session or this job.
func findControl() (*agent.Control, place, error) {
	if socket := os.Getenv(agent.ControlVariable); socket != "" {
		p := place{base: strings.TrimSuffix(socket, filepath.Ext(socket))}
		return agent.DialControl(socket), p, nil
	}
	p, err := placeOf(ci.Detect(os.Getenv))
	if err != nil {
		return nil, p, err
	}
	return agent.DialControl(p.socket()), p, nil
}
