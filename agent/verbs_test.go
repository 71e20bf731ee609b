//go:build linux

package agent_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/agent"
	"github.com/stagedoor/stagedoor/agent/hold"
	"github.com/stagedoor/stagedoor/auth"
	"github.com/stagedoor/stagedoor/internal/testenv"
	"github.com/stagedoor/stagedoor/tunnel"
)

// TestVerbsByExec: they are answered before any shell, and there is none here.
func TestVerbsByExec(t *testing.T) {
	j := holdJob(t, auth.Grant{}, func(a *agent.Agent) { a.Shell = "/nonexistent/sh" })
	start := j.await("held", held)
	for _, c := range []struct {
		command        string
		stdout, stderr string // that it begins with
		status         int
	}{
		{"stagedoor status", "task task-42: registered\nsh -c 'exit 3' failed with status 3\nheld until ", "", 0},
		{"stagedoor extend 20m", "stagedoor: the job is held until ", "", 0},
		{"stagedoor extend --for 25m", "stagedoor: the job is held until ", "", 0},
		{"stagedoor extend --for=26m", "stagedoor: the job is held until ", "", 0},
		{"stagedoor extend", "stagedoor: the job is held until ", "", 0},
		{"stagedoor extend 99h", "stagedoor: the job is held until ", "", 0},
		{"stagedoor extend soon", "", "stagedoor: \"soon\" is no duration", 2},
		{"stagedoor extend -5m", "", "stagedoor: \"-5m\" is no duration", 2},
		{"stagedoor extend 5m 6m", "", "stagedoor: what is \"6m\"?", 2},
		{"stagedoor resume --status 256", "", "stagedoor: \"256\" is no exit status", 2},
		{"stagedoor resume now", "", "stagedoor: what is \"now\"?", 2},
		{"stagedoor fail now", "", "stagedoor: what is \"now\"?", 2},
		{"stagedoor status --xml", "", "stagedoor: what is \"--xml\"?", 2},
		{"stagedoor rerun now", "", "stagedoor: what is \"now\"?", 1},
		{"stagedoor help", "usage: stagedoor VERB\n", "", 0},
		{"stagedoor frobnicate", "", "stagedoor: there is no program stagedoor on the PATH", 1}, // no verb: a command like any other
		{"stagedoor extend 5m; echo $?", "", "stagedoor: this machine has no shell", 1},         // is for a shell
	} {
		stdout, stderr, status := j.exec(c.command)
		if !strings.HasPrefix(stdout, c.stdout) || !strings.HasPrefix(stderr, c.stderr) || status != c.status || c.stdout == "" && stdout != "" || c.stderr == "" && stderr != "" {
			t.Errorf("%s: %q, %q, status %d", c.command, stdout, stderr, status)
		}
	}
	stdout, _, _ := j.exec("stagedoor status --json")
	var s hold.Status
	check(json.Unmarshal([]byte(stdout), &s))
	if s.Task != "task-42" || !s.Held || s.Reason.Status != 3 || !s.Deadline.Equal(s.Hard) || s.Deadline.Sub(start.Since.Round(0)) > hold.DefaultHard {
		t.Errorf("%s", stdout)
	}
	if len(s.Guests) != 0 {
		t.Errorf("who runs verbs counts as attached: %+v", s.Guests)
	}
	if stdout, _, status := j.exec("stagedoor resume --status 4"); stdout != "stagedoor: the job goes on, with status 4\n" || status != 0 {
		t.Errorf("resumed with %q, status %d", stdout, status)
	}
	if o := j.outcome(); o.Result != hold.Resumed || o.By != "alice" || o.Status == nil || *o.Status != 4 || o.Why != "resumed by alice" {
		t.Errorf("%+v", o)
	}
	if _, stderr, status := j.exec("stagedoor fail"); status != 1 || stderr != "stagedoor: fail: the job is not held\n" {
		t.Errorf("failed what is not held: %q, status %d", stderr, status)
	}
}

// TestForwardingIsNoControl: who may forward and nothing else reaches the control socket by no path.
func TestForwardingIsNoControl(t *testing.T) {
	key, dir := testenv.Signer(t), t.TempDir()
	j := holdJob(t, auth.Grant{AuthorizedKeys: []string{string(bytes.TrimSpace(ssh.MarshalAuthorizedKey(key.PublicKey())))}, Permissions: []string{auth.PermitPortForwarding}},
		func(a *agent.Agent) { a.Dir = dir })
	j.await("held", held)
	check(os.Symlink(j.socket, filepath.Join(dir, "link")))
	other, err := net.Listen("unix", filepath.Join(dir, "other"))
	check(err)
	defer other.Close()
	c, err := j.gateway.client(j.tunnel, tunnel.ModeEndToEnd, ssh.PublicKeys(key))
	check(err)
	defer c.Close()
	for path, want := range map[string]bool{j.socket: false, "link": false, filepath.Join(dir, ".", "link"): false, "other": true} {
		nc, err := c.Dial("unix", path)
		if err == nil {
			nc.Close()
		}
		if (err == nil) != want {
			t.Errorf("a forwarding to %s: %v", path, err)
		}
	}
}

func TestVerbOnATerminal(t *testing.T) {
	j := holdJob(t, auth.Grant{}, nil)
	j.await("held", held)
	c, err := j.gateway.client(j.tunnel, tunnel.ModeSpliced)
	check(err)
	s, err := c.NewSession()
	check(err)
	check(s.RequestPty("xterm", 24, 80, nil))
	out, err := s.Output("stagedoor fail")
	if string(out) != "stagedoor: the job ends as failed\r\n" || err != nil {
		t.Errorf("%q %v", out, err)
	}
	if o := j.outcome(); o.Result != hold.Failed || o.ExitStatus() != 1 || o.Why != "ended as failed by alice" {
		t.Errorf("%+v", o)
	}
}

// TestVerbsNeedPermission: end to end as well, and a forced command wins over them.
func TestVerbsNeedPermission(t *testing.T) {
	full, forced, reader := testenv.Signer(t), testenv.Signer(t), testenv.Signer(t)
	line := func(options string, k ssh.Signer) string {
		return options + strings.TrimSpace(string(ssh.MarshalAuthorizedKey(k.PublicKey()))) + " bob"
	}
	withPermissions := func(names ...string) *heldJob {
		return holdJob(t, auth.Grant{AuthorizedKeys: []string{line("", full), line(`command="echo forced" `, forced), line("", reader)}, Permissions: names},
			func(a *agent.Agent) { a.Program = "/bin/echo" })
	}
	run := func(j *heldJob, key ssh.Signer, command string) string {
		t.Helper()
		c, err := j.gateway.client(j.tunnel, tunnel.ModeEndToEnd, ssh.PublicKeys(key))
		check(err)
		defer c.Close()
		s, err := c.NewSession()
		check(err)
		out, _ := s.CombinedOutput(command)
		return string(out)
	}
	j := withPermissions(auth.PermitExec, auth.PermitControl)
	j.await("held", held)
	if out := run(j, full, "stagedoor extend 15m"); !strings.HasPrefix(out, "stagedoor: the job is held until ") {
		t.Errorf("with the permission: %q", out)
	}
	if out := run(j, forced, "stagedoor fail"); out != "forced\n" {
		t.Errorf("a forced command: %q", out)
	}
	if out := run(j, full, "stagedoor from the path; echo $STAGEDOOR_CONTROL"); out != "from the path\n"+j.socket+"\n" {
		t.Errorf("inside, with the permission: %q", out)
	}
	j = withPermissions(auth.PermitExec)
	j.await("held", held)
	if out := run(j, reader, "stagedoor fail"); !strings.Contains(out, "fail needs the permission control") {
		t.Errorf("without the permission: %q", out)
	}
	if out := run(j, reader, "stagedoor rerun"); !strings.Contains(out, "rerun needs the permission control") {
		t.Errorf("without the permission: %q", out)
	}
	if out := run(j, reader, "command -v stagedoor; echo -$STAGEDOOR_CONTROL-"); out != "--\n" {
		t.Errorf("inside, without the permission: %q", out)
	}
	if s, err := j.Status(t.Context()); err != nil || !s.Held {
		t.Errorf("%+v %v", s, err)
	}
}

// TestRerun runs the command of the job again, where it ran.
func TestRerun(t *testing.T) {
	j := holdJob(t, auth.Grant{}, nil)
	j.await("held", held)
	dir := t.TempDir()
	if _, _, status := j.exec("stagedoor rerun"); status != 3 {
		t.Errorf("the command of the job ended with %d", status)
	}
	j.SetCommand(hold.Command{Args: []string{"sh", "-c", `pwd; echo "$0" >&2; kill -9 $$`, "a b"}, Dir: dir})
	stdout, stderr, _ := j.exec("stagedoor rerun || true")
	if stdout != "" || !strings.Contains(stderr, "stagedoor") { // the shell's, and Program is not set
		t.Errorf("%q %q", stdout, stderr)
	}
	c, err := j.gateway.client(j.tunnel, tunnel.ModeSpliced)
	check(err)
	s, err := c.NewSession()
	check(err)
	var out, errs bytes.Buffer
	s.Stdout, s.Stderr = &out, &errs
	err = s.Run("stagedoor rerun")
	if exit, ok := errors.AsType[*ssh.ExitError](err); !ok || exit.Signal() != "KILL" || out.String() != dir+"\n" || errs.String() != "a b\n" {
		t.Errorf("%q %q %v", out.String(), errs.String(), err)
	}
	if status, err := j.Status(t.Context()); err != nil || status.Rerun == nil || *status.Rerun != 128+9 {
		t.Errorf("%+v %v", status.Rerun, err)
	}
}

// TestControlSocket: a hold by another process, which is told what changes and gives it up when it goes.
func TestControlSocket(t *testing.T) {
	j := holdJob(t, auth.Grant{}, nil)
	j.await("held", held)
	_, err := j.Resume(t.Context(), nil)
	check(err)
	j.outcome()
	info, err := os.Stat(j.socket)
	check(err)
	parent, err := os.Stat(filepath.Dir(j.socket))
	check(err)
	if info.Mode().Perm() != 0o600 || parent.Mode().Perm() != 0o700 {
		t.Errorf("others may use it: %v in %v", info.Mode(), parent.Mode())
	}
	control := agent.DialControl(j.socket)
	check(control.Reran(t.Context(), 5))
	changes := make(chan hold.Status, 100)
	ended := make(chan hold.Outcome, 1)
	go func() {
		o, err := control.Hold(t.Context(), failure, hold.Settings{Wait: time.Hour, Hard: 90 * time.Minute}, func(s hold.Status) { changes <- s })
		check(err)
		ended <- o
	}()
	s := <-changes
	if !s.Held || s.Deadline.Sub(s.Since) != time.Hour || s.Reason.String() != failure.String() || s.Rerun == nil || *s.Rerun != 5 {
		t.Errorf("%+v", s)
	}
	extended, err := control.Extend(t.Context(), 80*time.Minute)
	check(err)
	for !(<-changes).Deadline.Equal(extended.Deadline) {
	}
	x := j.shell()
	x.await("stagedoor fail")
	_, err = control.Fail(t.Context())
	check(err)
	if o := <-ended; o.Result != hold.Failed || o.ExitStatus() != 1 {
		t.Errorf("%+v", o)
	}
	x.await("\a\r\nstagedoor: the job is held no longer: ended as failed\r\n") // and the session goes on
	if _, err := control.Resume(t.Context(), nil); !errors.Is(err, agent.ErrNotHeld) {
		t.Errorf("resumed what is not held: %v", err)
	}
	t.Run("whose holder goes", func(t *testing.T) {
		nc := exec.CommandContext(t.Context(), testenv.Need(t, "nc"), "-U", j.socket)
		in, err := nc.StdinPipe()
		check(err)
		check(nc.Start())
		_, err = in.Write([]byte(`{"verb":"hold","reason":{}}` + "\n"))
		check(err)
		j.await("held again", func(s hold.Status) bool { return s.Held && s.Reason.Status == 0 })
		check(nc.Process.Kill())
		nc.Wait()
		j.await("given up", func(s hold.Status) bool { return s.Outcome != nil && s.Outcome.Result == hold.Canceled })
	})
	t.Run("whose agent goes", func(t *testing.T) {
		go func() {
			o, err := control.Hold(t.Context(), failure, hold.Settings{Hard: 33 * time.Minute}, nil)
			check(err)
			ended <- o
		}()
		j.await("held again", func(s hold.Status) bool { return s.Hard.Sub(s.Since) == 33*time.Minute })
		j.stop()
		if o := <-ended; o.Result != hold.Lost || o.ExitStatus() != 0 {
			t.Errorf("%+v", o)
		}
		if _, err := os.Stat(filepath.Dir(j.socket)); !errors.Is(err, os.ErrNotExist) {
			j.await("the end", func(s hold.Status) bool { return s.State == hold.Ended })
			if _, err := os.Stat(filepath.Dir(j.socket)); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("left behind: %v", err)
			}
		}
	})
}

// TestControlSocketInPlace of one that was left behind, and not of one that is in use.
func TestControlSocketInPlace(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "s")
	j := holdJob(t, auth.Grant{}, func(a *agent.Agent) { a.ControlSocket = path })
	if j.socket != path {
		t.Errorf("it is at %s", j.socket)
	}
	second := j.gateway.agent(auth.Grant{})
	second.ControlSocket = path
	if err := second.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "control socket") {
		t.Errorf("two agents share a socket: %v", err)
	}
	if _, err := agent.DialControl(path).Status(t.Context()); err != nil {
		t.Errorf("the first was disturbed: %v", err)
	}
}

// TestControlSocketRefusesNonsense.
func TestControlSocketRefusesNonsense(t *testing.T) {
	j := holdJob(t, auth.Grant{}, nil)
	for _, text := range []string{"\n", "{}\n", `{"verb":"reran"}` + "\n", `{"verb":"hold"}` + "\n", `{"verb":"dance"}` + "\n", "[]\n"} {
		nc := exec.CommandContext(t.Context(), testenv.Need(t, "nc"), "-N", "-U", j.socket)
		nc.Stdin = strings.NewReader(text)
		out, err := nc.Output()
		check(err)
		if !strings.Contains(string(out), `"error":"the `) {
			t.Errorf("%q is answered by %s", text, out)
		}
	}
}
