//go:build linux

package agent

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	sshagent "golang.org/x/crypto/ssh/agent"

	"github.com/stagedoor/stagedoor/auth"
	"github.com/stagedoor/stagedoor/internal/testenv"
)

// startAgent starts an ssh-agent that holds a key, and makes the host's clients forward it when they are asked to. It returns the
// key as a line.
func (h *testHost) startAgent() string {
	h.t.Helper()
	socket := h.path("agent")
	cmd := exec.CommandContext(h.t.Context(), testenv.Need(h.t, "ssh-agent"), "-D", "-a", socket)
	must(h.t, cmd.Start())
	h.t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	key := testenv.NewKey(h.t, h.home, "agent-key")
	eventually(h.t, "ssh-agent", func() bool {
		c, err := net.Dial("unix", socket)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	add := exec.CommandContext(h.t.Context(), testenv.Need(h.t, "ssh-add"), "-q", key.File)
	add.Env = append(os.Environ(), "SSH_AUTH_SOCK="+socket)
	if out, err := add.CombinedOutput(); err != nil {
		h.t.Fatalf("%v: %s", err, out)
	}
	f, err := os.OpenFile(h.path("config"), os.O_APPEND|os.O_WRONLY, 0)
	must(h.t, err)
	defer f.Close()
	fmt.Fprintf(f, "\tForwardAgent no\n")
	must(h.t, os.WriteFile(h.path("config"), []byte(strings.Replace(h.config(), "IdentityAgent none", "IdentityAgent "+socket, 1)), 0o600))
	return key.Line
}

func (h *testHost) config() string {
	b, err := os.ReadFile(h.path("config"))
	must(h.t, err)
	return string(b)
}

// noPrivateDir waits until a session's directory is gone.
func (h *testHost) noPrivateDir(socket string) {
	h.t.Helper()
	eventually(h.t, "the end of "+filepath.Dir(socket), func() bool {
		_, err := os.Lstat(filepath.Dir(socket))
		return errors.Is(err, os.ErrNotExist)
	})
}

func TestAgentForwarding(t *testing.T) {
	h := newTestHost(t, func(s *Server) {
		s.Env = append(s.Env, "TMPDIR="+t.TempDir(), "SSH_AUTH_SOCK=/of/the/task", "SSH_AGENT_PID=1")
	})
	key := h.startAgent()
	r := h.run(h.client("ssh", "-A", "task", `ssh-add -L; stat -c '%a %F' "$SSH_AUTH_SOCK" "$(dirname "$SSH_AUTH_SOCK")"; echo $SSH_AGENT_PID$TMPDIR; echo $SSH_AUTH_SOCK`), "")
	lines := strings.Split(r.stdout, "\n")
	if r.status != 0 || len(lines) != 6 || lines[0] != key || lines[1] != "600 socket" || lines[2] != "700 directory" || filepath.Dir(filepath.Dir(lines[4])) != lines[3] {
		t.Fatalf("%+v", r)
	}
	h.noPrivateDir(lines[4])
	// Without being asked it leaves what the task has.
	h.run(h.client("ssh", "-a", "task", "echo $SSH_AUTH_SOCK $SSH_AGENT_PID"), "").want(t, "/of/the/task 1\n")
}

// The forwarded agent signs, for ssh-keygen and for ssh to another host, also for sessions of one connection side by side.
func TestForwardedAgentSigns(t *testing.T) {
	h := newTestHost(t, nil)
	key := h.startAgent()
	h.file("signers", []byte("me "+key+"\n"))
	h.file("key.pub", []byte(key+"\n"))
	sign := "echo text > text; ssh-keygen -q -Y sign -n file -f key.pub text 2>/dev/null && ssh-keygen -Y verify -n file -I me -f signers -s text.sig < text"
	for _, tty := range []string{"-T", "-tt"} {
		if r := h.run(h.client("ssh", "-A", tty, "task", "rm -f text.sig; "+sign), ""); r.status != 0 || !strings.Contains(r.stdout, "Good") {
			t.Errorf("%s: %+v", tty, r)
		}
	}
	second := newTestHost(t, func(s *Server) { s.Grant.AuthorizedKeys = []string{key} })
	host, port, _ := net.SplitHostPort(second.addr)
	nested := fmt.Sprintf("ssh -F none -o UserKnownHostsFile=%s -p %s %s echo '$STAGEDOOR_TASK'", second.path("known_hosts"), port, host)
	h.run(h.client("ssh", "-A", "task", nested), "").want(t, "task-1\n")

	h.master("-A")
	var waits []func(*testing.T) result
	for range 4 {
		waits = append(waits, start(t, h.client("ssh", "-A", "task", "for i in 1 2 3; do ssh-add -L; done; echo $SSH_AUTH_SOCK")))
	}
	sockets := make(map[string]bool)
	for _, wait := range waits {
		r := wait(t)
		if !strings.HasPrefix(r.stdout, strings.Repeat(key+"\n", 3)) || r.status != 0 {
			t.Errorf("%+v", r)
		}
		sockets[strings.TrimPrefix(r.stdout, strings.Repeat(key+"\n", 3))] = true
	}
	if len(sockets) != len(waits) {
		t.Errorf("sessions share a socket: %v", sockets)
	}
}

// What a session leaves behind has the guest's agent no longer, though its connection lives on.
func TestAgentIsGoneWithItsSession(t *testing.T) {
	h := newTestHost(t, nil)
	h.startAgent()
	h.master("-A")
	cmd := h.client("ssh", "-A", "task", "echo $SSH_AUTH_SOCK; read x")
	in, err := cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	socket := readLine(t, bufio.NewReader(out))
	left, err := net.Dial("unix", socket)
	must(t, err)
	defer left.Close()
	left.SetDeadline(time.Now().Add(patience))
	keys := sshagent.NewClient(left)
	if list, err := keys.List(); len(list) != 1 || err != nil {
		t.Fatalf("%v %v", list, err)
	}
	fmt.Fprintln(in)
	must(t, cmd.Wait())
	h.noPrivateDir(socket)
	if n, err := left.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("its connection: %d %v", n, err)
	}
	if r := h.run(h.client("ssh", "-O", "check", "task"), ""); r.status != 0 {
		t.Errorf("the guest's connection did not live on: %+v", r)
	}
	// And when the connection is lost.
	cmd = h.client("ssh", "-A", "-S", "none", "task", "echo $SSH_AUTH_SOCK; exec sleep 1000")
	out, err = cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	socket = readLine(t, bufio.NewReader(out))
	cmd.Process.Kill()
	cmd.Wait()
	h.noPrivateDir(socket)
}

// agentGuest is a guest by the library, who sees which channels the host opens.
func agentGuest(t *testing.T, h *testHost) (c *ssh.Client, opened <-chan ssh.NewChannel) {
	t.Helper()
	c = h.dial()
	return c, c.HandleChannelOpen("auth-agent@openssh.com")
}

func TestAgentForwardingIsRefused(t *testing.T) {
	for name, change := range map[string]func(*Server){
		"by the grant":        func(s *Server) { s.Grant.Permissions = []string{auth.PermitExec, auth.PermitPTY} },
		"by the key's option": func(s *Server) { s.Grant.AuthorizedKeys[0] = "no-agent-forwarding " + s.Grant.AuthorizedKeys[0] },
	} {
		h := newTestHost(t, func(s *Server) {
			change(s)
			s.Env = append(s.Env, "SSH_AUTH_SOCK=/of/the/task")
		})
		h.startAgent()
		h.run(h.client("ssh", "-A", "task", "echo $SSH_AUTH_SOCK"), "").want(t, "/of/the/task\n")
		c := h.dial()
		ch, reqs, err := c.OpenChannel("session", nil)
		must(t, err)
		go ssh.DiscardRequests(reqs)
		if request(ch, "auth-agent-req@openssh.com", nil) == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// openSession opens a session and asks for something in it.
func openSession(t *testing.T, c *ssh.Client, requests ...string) ssh.Channel {
	t.Helper()
	ch, reqs, err := c.OpenChannel("session", nil)
	must(t, err)
	go ssh.DiscardRequests(reqs)
	for _, name := range requests {
		must(t, request(ch, name, nil))
	}
	return ch
}

// A guest that does not answer holds up nothing but its own agent, and the half-close of either side is passed on.
func TestAgentChannels(t *testing.T) {
	h := newTestHost(t, nil)
	c, opened := agentGuest(t, h)
	ch := openSession(t, c, "auth-agent-req@openssh.com")
	must(t, request(ch, "exec", ssh.Marshal(struct{ C string }{"echo $SSH_AUTH_SOCK; cat"})))
	socket, err := bufio.NewReader(ch).ReadString('\n')
	must(t, err)
	socket = strings.TrimSpace(socket)
	program, err := net.Dial("unix", socket)
	must(t, err)
	defer program.Close()
	unanswered := <-opened
	if out := output(t, c, "echo alive"); out != "alive\n" {
		t.Errorf("%q", out)
	}
	if unanswered.ChannelType() != "auth-agent@openssh.com" || len(unanswered.ExtraData()) != 0 {
		t.Errorf("%s %q", unanswered.ChannelType(), unanswered.ExtraData())
	}
	guestEnd, reqs, err := unanswered.Accept()
	must(t, err)
	go ssh.DiscardRequests(reqs)
	go func() {
		b, _ := io.ReadAll(guestEnd)
		guestEnd.Write(append([]byte("got "), b...))
		guestEnd.Close()
	}()
	program.Write([]byte("all"))
	program.(*net.UnixConn).CloseWrite()
	if b, err := io.ReadAll(program); string(b) != "got all" || err != nil {
		t.Errorf("%q %v", b, err)
	}
	// Refused by the guest.
	program, err = net.Dial("unix", socket)
	must(t, err)
	defer program.Close()
	(<-opened).Reject(ssh.Prohibited, "no")
	if b, err := io.ReadAll(program); len(b) != 0 || err != nil {
		t.Errorf("%q %v", b, err)
	}
	// Once more on the same session, or after the program has started, there is nothing to get.
	if request(ch, "auth-agent-req@openssh.com", nil) == nil {
		t.Error("a second socket on one session")
	}
	ch.Close()
	h.noPrivateDir(socket)
}

// The name in the IETF's draft is answered with the channels of that draft.
func TestAgentForwardingOfTheDraft(t *testing.T) {
	h := newTestHost(t, nil)
	c := h.dial()
	opened := c.HandleChannelOpen("agent-connect")
	guest := sshagent.NewKeyring()
	_, key := newSigner(t)
	must(t, guest.Add(sshagent.AddedKey{PrivateKey: key, Comment: "drafted"}))
	go func() {
		for nc := range opened {
			ch, reqs, err := nc.Accept()
			if err != nil {
				return
			}
			go ssh.DiscardRequests(reqs)
			go func() {
				sshagent.ServeAgent(guest, ch)
				ch.Close()
			}()
		}
	}()
	s, err := c.NewSession()
	must(t, err)
	ok, err := s.SendRequest("agent-req", true, nil)
	if !ok || err != nil {
		t.Fatal(ok, err)
	}
	out, err := s.Output("ssh-add -l")
	if err != nil || !strings.Contains(string(out), " drafted ") {
		t.Errorf("%q %v", out, err)
	}
}

// Whatever a program does to its directory, it is gone in the end. A TMPDIR that is of no use is no obstacle.
func TestPrivateDirectory(t *testing.T) {
	for _, tmp := range []string{"relative", "/no/such/directory", "/" + strings.Repeat("long/", 30), t.TempDir()} {
		h := newTestHost(t, func(s *Server) { s.Env = append(s.Env, "TMPDIR="+tmp) })
		c, _ := agentGuest(t, h)
		s, err := c.NewSession()
		must(t, err)
		ok, err := s.SendRequest("auth-agent-req@openssh.com", true, nil)
		if !ok || err != nil {
			t.Fatal(tmp, ok, err)
		}
		out, err := s.Output(`cd $(dirname $SSH_AUTH_SOCK); mv agent.* moved; mkdir -p a/b; chmod 500 a/b; ln -s / root; echo $SSH_AUTH_SOCK`)
		must(t, err)
		h.noPrivateDir(strings.TrimSpace(string(out)))
		if _, err := os.Stat("/tmp"); err != nil {
			t.Fatal(err)
		}
	}
}
