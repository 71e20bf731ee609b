package agent

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/stagedoor/stagedoor/agent/hold"
)

const (
	maxControlRequest = 256 << 10 // in bytes: the command of the job is in it
	maxControlConns   = 64
	controlTimeout    = 10 * time.Second // to send a request, or to take an answer
	statusNews        = time.Second      // how often who holds the job is told what has changed
)

// controlSocket is where other processes of this user act upon the agent, and where sessions find the verbs.
type controlSocket struct {
	agent    *Agent
	dir      string // private; empty where none is needed
	path     string // of the socket
	listener net.Listener
	slots    chan struct{}
	wg       sync.WaitGroup
}

// listenControl makes the control socket, and the directory with the program of that name for the PATH of sessions.
func (a *Agent) listenControl() (*controlSocket, error) {
	c := &controlSocket{agent: a, path: a.ControlSocket, slots: make(chan struct{}, maxControlConns)}
	var err error
	if a.ControlSocket == "" || a.Program != "" {
		if c.dir, err = privateDir("stagedoor-", a.controlDirs()); err != nil {
			return nil, err
		}
	}
	if c.path == "" {
		c.path = filepath.Join(c.dir, "control")
	}
	if c.listener, err = listenForUser(c.path); err == nil && a.Program != "" {
		err = c.link(a.Program)
	}
	if err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

// controlDirs are where the private directory may be: beside a socket whose place was given, so that whoever gave it can clear up
// after an agent that was killed.
func (a *Agent) controlDirs() []string {
	dirs := tempDirs(a.Env, "/stagedoor-1234567890/control")
	if a.ControlSocket != "" {
		dirs = append([]string{filepath.Dir(a.ControlSocket)}, dirs...)
	}
	return dirs
}

// openControl makes the control socket. Where no path was asked for, an agent that cannot make one goes without.
func (a *Agent) openControl() error {
	c, err := a.listenControl()
	switch {
	case err == nil:
		a.server.socket = c
	case a.ControlSocket != "":
		return fmt.Errorf("agent: control socket: %w", err)
	default:
		a.log().Warn("the verbs of stagedoor do not work inside of sessions: no control socket", "error", err)
	}
	return nil
}

// listenForUser makes a socket that this user alone can connect to, in the place of one that a process left behind.
func listenForUser(path string) (net.Listener, error) {
	l, err := net.Listen("unix", path)
	if errors.Is(err, syscall.EADDRINUSE) && abandoned(path) && os.Remove(path) == nil {
		l, err = net.Listen("unix", path)
	}
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// abandoned tells whether a path is a socket on which nobody listens.
func abandoned(path string) bool {
	info, err := os.Lstat(path)
	if err != nil || info.Mode()&os.ModeSocket == 0 {
		return false
	}
	c, err := net.Dial("unix", path)
	if err == nil {
		c.Close()
	}
	return errors.Is(err, syscall.ECONNREFUSED)
}

// at tells whether a path leads to the socket, by whatever links: who may forward need not be one who may control the job.
func (c *controlSocket) at(path string) bool {
	if c == nil {
		return false
	}
	own, err := os.Stat(c.path)
	if err != nil {
		return false
	}
	there, err := os.Stat(path)
	return err == nil && os.SameFile(own, there)
}

// bin is the directory for the PATH of sessions.
func (c *controlSocket) bin() string { return filepath.Join(c.dir, "bin") }

func (c *controlSocket) link(program string) error {
	if err := os.Mkdir(c.bin(), 0o700); err != nil {
		return err
	}
	return os.Symlink(program, filepath.Join(c.bin(), "stagedoor"))
}

// close ends the socket, waits for those who use it, and removes what was made.
func (c *controlSocket) close() {
	if c.listener != nil {
		c.listener.Close() // which removes the socket
	}
	c.wg.Wait()
	if c.dir != "" {
		os.RemoveAll(c.dir)
	}
}

// serve answers requests until ctx ends.
func (c *controlSocket) serve(ctx context.Context) {
	defer c.close()
	defer context.AfterFunc(ctx, func() { c.listener.Close() })()
	for {
		nc, err := c.listener.Accept()
		switch {
		case err == nil:
		case isPassing(err):
			time.Sleep(maxAcceptDelay)
			continue
		default:
			return
		}
		c.slots <- struct{}{}
		c.wg.Go(func() {
			defer func() { <-c.slots }()
			defer nc.Close()
			defer recoverTo(c.agent.log(), func() {})
			defer context.AfterFunc(ctx, func() { nc.Close() })()
			c.answer(ctx, nc)
		})
	}
}

// answer answers the one request on a connection.
func (c *controlSocket) answer(ctx context.Context, nc net.Conn) {
	nc.SetDeadline(time.Now().Add(controlTimeout))
	line, err := bufio.NewReader(io.LimitReader(nc, maxControlRequest)).ReadBytes('\n')
	var ask controlRequest
	if err == nil {
		err = json.Unmarshal(line, &ask)
	}
	if err != nil {
		writeAnswer(nc, controlAnswer{Error: "the request cannot be read"})
		return
	}
	if ask.Verb == "hold" {
		c.hold(ctx, nc, ask)
		return
	}
	writeAnswer(nc, c.act(ctx, ask))
}

// act does what a request other than a hold asks for.
func (c *controlSocket) act(ctx context.Context, ask controlRequest) (a controlAnswer) {
	u := asUser{c.agent, ask.By}
	var err error
	switch {
	case ask.Verb == "status":
		a.Status, err = u.Status(ctx)
	case ask.Verb == "extend":
		a.Status, err = u.Extend(ctx, ask.For)
	case ask.Verb == "resume":
		a.Status, err = u.Resume(ctx, ask.Status)
	case ask.Verb == "fail":
		a.Status, err = u.Fail(ctx)
	case ask.Verb == "reran" && ask.Status != nil:
		err = u.Reran(ctx, *ask.Status)
	default:
		err = fmt.Errorf("the agent does not know what %.32q asks for", ask.Verb)
	}
	a.fail(err)
	return a
}

// fail puts an error into an answer.
func (a *controlAnswer) fail(err error) {
	if err == nil {
		return
	}
	a.Error = err.Error()
	for code, known := range controlCodes {
		if errors.Is(err, known) {
			a.Code = code
		}
	}
}

// hold holds the job for as long as its client is there, whom it keeps informed.
func (c *controlSocket) hold(ctx context.Context, nc net.Conn, ask controlRequest) {
	if ask.Reason == nil {
		writeAnswer(nc, controlAnswer{Error: "the request cannot be read"})
		return
	}
	going := ctx // ends when the agent does
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	nc.SetDeadline(time.Time{})
	go func() {
		defer cancel()
		io.Copy(io.Discard, nc) // until the client has gone, or nc was closed
	}()
	informed := make(chan struct{})
	go func() {
		defer close(informed)
		c.inform(ctx, nc)
	}()
	o, err := c.agent.hold(ctx, *ask.Reason, ask.Settings)
	if going.Err() != nil && o.Result == hold.Canceled {
		o = *outcome(hold.Lost) // nobody has cancelled the job
	}
	if err == nil {
		c.agent.server.notify(func(*guest) notice { return released(o) })
	}
	cancel()
	<-informed
	a := controlAnswer{Outcome: &o}
	a.Status, _ = c.agent.Status(ctx)
	if err != nil {
		a.Outcome = nil
		a.fail(err)
	}
	writeAnswer(nc, a)
}

// inform sends the status at first and whenever it has changed, until ctx ends.
func (c *controlSocket) inform(ctx context.Context, nc net.Conn) {
	tick := time.NewTicker(statusNews)
	defer tick.Stop()
	news := &news{}
	for {
		s := c.agent.status()
		if is, _ := news.look(s); is && s.Held && writeAnswer(nc, controlAnswer{Status: s}) != nil {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// writeAnswer writes one line.
func writeAnswer(nc net.Conn, a controlAnswer) error {
	nc.SetWriteDeadline(time.Now().Add(controlTimeout))
	return json.NewEncoder(nc).Encode(a)
}
