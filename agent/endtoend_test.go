//go:build linux

package agent

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/auth"
	"github.com/stagedoor/stagedoor/internal/testenv"
	"github.com/stagedoor/stagedoor/tunnel"
)

// paste runs a command of the job's log in a shell, as a guest does, with a word more for what to run. In the place of the gateway
// that -J names stands a connection to the host.
func (h *testHost) paste(command, run string) result {
	h.t.Helper()
	real := testenv.Need(h.t, "ssh")
	testenv.Need(h.t, "nc")
	bin := h.t.TempDir()
	host, port, _ := net.SplitHostPort(h.addr)
	config := fmt.Sprintf("IdentityFile %s\nIdentityAgent none\nUserKnownHostsFile %s\nGlobalKnownHostsFile none\nLogLevel ERROR\n", h.path("key"), h.path("known_hosts"))
	must(h.t, os.WriteFile(bin+"/config", []byte(config), 0o600))
	script := fmt.Sprintf("#!/bin/sh\ntest \"$1\" = -J || exit 99\nshift 2\nexec %s -F %s/config -o ProxyCommand='nc %s %s' \"$@\"\n", real, bin, host, port)
	must(h.t, os.WriteFile(bin+"/ssh", []byte(script), 0o700))
	cmd := exec.CommandContext(h.t.Context(), "/bin/sh", "-c", command+" "+run)
	cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"))
	return h.run(cmd, "")
}

func (h *testHost) commands() commands {
	c := commands{task: h.Task, host: "gateway.example.com", port: "22", key: h.HostKey.PublicKey()}
	if h.HostCertificate != nil {
		c.names = h.HostCertificate.ValidPrincipals
	}
	return c
}

func (h *testHost) knownHosts(lines ...string) {
	h.t.Helper()
	must(h.t, os.WriteFile(h.path("known_hosts"), []byte(strings.Join(lines, "\n")+"\n"), 0o600))
}

// The command asks nothing, whatever the guest's known_hosts says of earlier hosts of that name, and takes no other host.
func TestPastedCommand(t *testing.T) {
	_, key, err := ecdsaSigner()
	must(t, err)
	other, _ := newSigner(t)
	for name, hostKey := range map[string]ssh.Signer{"ed25519": nil, "ecdsa": key} {
		t.Run(name, func(t *testing.T) {
			h := newTestHost(t, func(s *Server) {
				if hostKey != nil {
					s.HostKey = hostKey
				}
			})
			c := h.commands()
			h.knownHosts("")
			h.paste(c.pinned(), "echo in").want(t, "in\n")
			h.knownHosts("task-1 "+line(other), "gateway.example.com "+line(other))
			h.paste(c.pinned(), "echo in").want(t, "in\n")
			c.key = other.PublicKey()
			h.knownHosts("")
			if r := h.paste(c.pinned(), "echo in"); r.stdout != "" || r.status != 255 || !strings.Contains(r.stderr, "Host key verification failed") {
				t.Errorf("another host key: %+v", r)
			}
		})
	}
}

func ecdsaSigner() (*ecdsa.PrivateKey, ssh.Signer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	signer, err := ssh.NewSignerFromKey(key)
	return key, signer, err
}

// A guest who trusts the CA types the short command; one who does not is shown the plain key.
func TestHostCertificate(t *testing.T) {
	ca, _ := newSigner(t)
	h := newTestHost(t, func(s *Server) {
		s.HostCertificate = hostCertificate(t, ca, s.HostKey, time.Now().Add(-time.Minute), "task-1", "task-1.gateway.example.com")
	})
	c := h.commands()
	if got, want := c.certified(), "ssh -J task-1@gateway.example.com task-1.gateway.example.com"; got != want {
		t.Fatalf("%q, want %q", got, want)
	}
	h.knownHosts("@cert-authority *.gateway.example.com " + line(ca))
	h.paste(c.certified()+" -o StrictHostKeyChecking=yes", "echo in").want(t, "in\n")
	h.paste(c.pinned(), "echo in").want(t, "in\n")
	h.knownHosts("task-1.gateway.example.com " + line(h.HostKey))
	h.paste(c.certified()+" -o StrictHostKeyChecking=yes", "echo in").want(t, "in\n")
	other, _ := newSigner(t)
	h.knownHosts("@cert-authority *.gateway.example.com " + line(other))
	if r := h.paste(c.certified()+" -o StrictHostKeyChecking=yes", "echo in"); r.status != 255 || r.stdout != "" {
		t.Errorf("a CA that the guest does not know: %+v", r)
	}
	h.knownHosts("@cert-authority * " + line(ca))
	if r := h.paste("ssh -J gateway.example.com task-2 -o StrictHostKeyChecking=yes", "echo in"); r.status != 255 || r.stdout != "" {
		t.Errorf("the name of another task: %+v", r)
	}
}

func hostCertificate(t *testing.T, ca, key ssh.Signer, from time.Time, names ...string) *ssh.Certificate {
	t.Helper()
	cert, err := auth.IssueHostCertificate(ca, key.PublicKey(), names, from, 30*time.Minute)
	must(t, err)
	return cert
}

// The gateway was told one key and is shown that one, certificate or not.
func TestSplicedGuestsSeeThePlainHostKey(t *testing.T) {
	ca, _ := newSigner(t)
	h := newTestHost(t, func(s *Server) {
		s.HostCertificate = hostCertificate(t, ca, s.HostKey, time.Now().Add(-time.Minute), "task-1")
	})
	addr := h.serveTunnel(vouched{task: "task-1", perms: auth.FullPermissions(), remote: "192.0.2.7:4711"})
	_, err := dialWith(t, h, addr)
	must(t, err)
}

func TestHostKeyIsCheckedAtStart(t *testing.T) {
	ca, _ := newSigner(t)
	key, _ := newSigner(t)
	other, _ := newSigner(t)
	now := time.Now()
	userCert := hostCertificate(t, ca, key, now, "task-1")
	userCert.CertType = ssh.UserCert
	must(t, userCert.SignCert(rand.Reader, ca))
	for name, cert := range map[string]*ssh.Certificate{
		"for another key":   hostCertificate(t, ca, other, now, "task-1"),
		"for another task":  hostCertificate(t, ca, key, now, "task-2", "a.task-1", "task-10.example.com"),
		"expired":           hostCertificate(t, ca, key, now.Add(-time.Hour), "task-1"),
		"not yet in force":  hostCertificate(t, ca, key, now.Add(time.Hour), "task-1"),
		"of a user":         userCert,
		"empty":             {},
		"not signed at all": {Key: key.PublicKey(), CertType: ssh.HostCert, ValidPrincipals: []string{"task-1"}, ValidBefore: ssh.CertTimeInfinity},
	} {
		s := &Server{Task: "task-1", HostKey: key, HostCertificate: cert}
		if err := s.setup(); err == nil || !strings.Contains(err.Error(), "host certificate") {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, names := range [][]string{{"task-1"}, {"x", "task-1.terminal.example.com"}} {
		s := &Server{Task: "task-1", HostKey: key, HostCertificate: hostCertificate(t, ca, key, now.Add(-time.Minute), names...)}
		if err := s.setup(); err != nil {
			t.Errorf("%q: %v", names, err)
		}
	}
}

// Whatever a gateway calls its address, a shell makes of the command what was meant: ssh and its arguments.
func TestCommandsInAShell(t *testing.T) {
	bin := t.TempDir()
	must(t, os.WriteFile(bin+"/ssh", []byte("#!/bin/sh\nprintf '%s\\n' \"$@\"\n"), 0o700))
	key, _ := newSigner(t)
	for _, test := range []struct{ address, jump, plain string }{
		{"gateway.example.com:22", "task-1@gateway.example.com", "task-1@gateway.example.com\n"},
		{"gateway.example.com:2222", "task-1@gateway.example.com:2222", "-p\n2222\ntask-1@gateway.example.com\n"},
		{"192.0.2.1:22", "task-1@192.0.2.1", "task-1@192.0.2.1\n"},
		{"[2001:db8::1]:22", "task-1@[2001:db8::1]", "task-1@2001:db8::1\n"},
		{"[2001:db8::1]:443", "task-1@[2001:db8::1]:443", "-p\n443\ntask-1@2001:db8::1\n"},
	} {
		a := &Agent{HostCertificate: &ssh.Certificate{ValidPrincipals: []string{"$(reboot)", "task-1"}}}
		a.server.Task, a.server.HostKey = "task-1", key
		a.server.Grant = &auth.Grant{AuthorizedKeys: []string{line(key)}}
		r := a.registration(tunnel.Welcome{Address: test.address})
		want := fmt.Sprintf("-J\n%s\n-o\nStrictHostKeyChecking=yes\n-o\nKnownHostsCommand=/bin/echo %%H %s\ntask-1\n", test.jump, line(key))
		for command, want := range map[string]string{
			r.EndToEndCommand: want, r.CertifiedCommand: "-J\n" + test.jump + "\ntask-1\n", r.SSHCommand: test.plain,
		} {
			if got := inShell(t, bin, command); got != want {
				t.Errorf("%s\ngives %q\nwant  %q", command, got, want)
			}
		}
	}
}

// inShell runs a command with the programs of a directory alone.
func inShell(t testing.TB, bin, command string) string {
	t.Helper()
	cmd := exec.Command("/bin/sh", "-c", command)
	cmd.Env = []string{"PATH=" + bin}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", command, err, stderr.String())
	}
	return string(out)
}

// FuzzCommands: an address that passes makes commands of safe characters alone, and one word for each argument.
func FuzzCommands(f *testing.F) {
	for _, address := range []string{"gateway.example.com:22", "[::1]:2222", "$(reboot):22", "a b:22", "-oProxyCommand=x:22", "a\nb:1", "[fe80::1%eth0]:22", "a':22"} {
		f.Add(address)
	}
	key, _ := newSigner(f)
	f.Fuzz(func(t *testing.T, address string) {
		a := &Agent{HostCertificate: &ssh.Certificate{ValidPrincipals: []string{"task-1", address, "task-1." + address}}}
		a.server.Task, a.server.HostKey = "task-1", key
		a.server.Grant = &auth.Grant{AuthorizedKeys: []string{line(key)}}
		r := a.registration(tunnel.Welcome{Address: address})
		pinned := strings.Replace(r.EndToEndCommand, "'KnownHostsCommand=/bin/echo %H "+line(key)+"'", "KEY", 1)
		for command, words := range map[string]int{r.SSHCommand: 4, r.CertifiedCommand: 4, pinned: 8} {
			rest := strings.Trim(command, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 .-_@:[]=")
			if rest != "" || len(strings.Fields(command)) > words || command != "" && !strings.HasPrefix(command, "ssh ") {
				t.Errorf("%q makes %q", address, command)
			}
		}
	})
}

// A guest end to end gets what both the grant and the gateway's operator permit; a policy that cannot be read permits nothing.
func TestGatewaysPolicyNarrows(t *testing.T) {
	narrow := &ssh.Permissions{Extensions: map[string]string{auth.PermitExec: "", auth.PermitPTY: ""}}
	execOnly, err := auth.MarshalPolicy(narrow)
	must(t, err)
	for _, test := range []struct {
		name   string
		policy string
		enters bool
		works  map[string]bool
	}{
		{"none", "", true, map[string]bool{"exec": true, "pty-req": true, "subsystem": true}},
		{"no sftp", string(execOnly), true, map[string]bool{"exec": true, "pty-req": true}},
		{"nothing", `{"permissions":[]}`, true, nil},
		{"gibberish", `{`, false, nil},
		{"unknown content", `{"permissions":["permit-pty"],"hours":"9-17"}`, false, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := newTestHost(t, nil)
			addr := h.serveEndToEnd(tunnel.Welcome{Policy: []byte(test.policy)})
			c, err := dialWith(t, h, addr, ssh.PublicKeys(h.guest))
			if (err == nil) != test.enters {
				t.Fatal(err)
			}
			for _, r := range []string{"exec", "pty-req", "subsystem"} {
				if test.enters && try(t, c, []string{r}) != test.works[r] {
					t.Errorf("%s: %v", r, !test.works[r])
				}
			}
		})
	}
}

// serveEndToEnd makes the host serve another listener, as a tunnel with end-to-end guests, and returns its address.
func (h *testHost) serveEndToEnd(w tunnel.Welcome) string {
	h.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(h.t, err)
	served := make(chan struct{})
	go func() {
		defer close(served)
		h.Serve(fakeTunnel{Listener: l, header: tunnel.StreamHeader{Mode: tunnel.ModeEndToEnd, Remote: "192.0.2.7:4711"}, welcome: w})
	}()
	h.t.Cleanup(func() { l.Close(); <-served })
	return l.Addr().String()
}
