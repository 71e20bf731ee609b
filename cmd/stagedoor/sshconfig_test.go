package main

import (
	"bytes"
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/agent"
	"github.com/stagedoor/stagedoor/auth"
	"github.com/stagedoor/stagedoor/internal/testenv"
)

// parsed is what the real ssh makes of a configuration for one host: its
// settings in order, without those of other lines that name the host.
func parsed(t testing.TB, client, config, host string) []string {
	t.Helper()
	cmd := exec.CommandContext(context.Background(), client, "-G", "-F", config, "--", host)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("ssh -G %q: %v", host, err)
	}
	var lines []string
	for line := range strings.Lines(string(out)) {
		if line = strings.TrimSuffix(line, "\n"); !strings.HasPrefix(line, "host ") && !strings.HasPrefix(line, "hostname ") {
			lines = append(lines, line)
		}
	}
	return lines
}

// settings are those of lines that are not in before.
func settings(lines, before []string) []string {
	return slices.DeleteFunc(slices.Clone(lines), func(line string) bool { return slices.Contains(before, line) })
}

// Whatever is printed means to ssh what was asked for, for the hosts that were
// meant and no others.
func FuzzSSHConfig(f *testing.F) {
	client := testenv.Need(f, "ssh")
	dir := f.TempDir()
	empty := filepath.Join(dir, "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		f.Fatal(err)
	}
	const unrelated = "unrelated.test"
	nothing := parsed(f, client, empty, unrelated)
	for _, seed := range [][4]string{
		{"terminal.example.com", "", "", ""},
		{"Terminal.example.com:2222", "~/.ssh/id work", "task-*", "443"},
		{"192.0.2.1:22", "~/100%", "t?-*", "8443"},
		{"[2001:db8::1]:2222", "~/ü", "a.b", ""},
		{"a\nHost *", "~/a\n    ProxyCommand x", "*\n", "1 x"},
		{"a b", "~/a\"b", "!x", "-1"},
		{"-oProxyCommand=x", "~/${HOME}", "a,b", "%p"},
		{"a%h", "~/a\\", "a#b", "0"},
		{"tеrminal.example.com", "~/\u202e", "*", "443 x"},
		{"host.\x00", "~/#", "[a-z]", "65536"},
		{unrelated, "~/x", "unrelated.*", ""},
	} {
		f.Add(seed[0], seed[1], seed[2], seed[3])
	}
	f.Fuzz(func(t *testing.T, gateway, identity, tasks, https string) {
		o := sshConfigOptions{gateway: gateway, httpsPort: https}
		if identity != "" {
			o.identity = "~/" + identity
		}
		if tasks != "" {
			o.tasks = []string{tasks}
		}
		c, err := o.check(&bytes.Buffer{})
		if err != nil {
			if s := err.Error(); strings.ContainsFunc(s, unicode.IsControl) {
				t.Fatalf("an error that plays tricks: %q", s)
			}
			return
		}
		config := filepath.Join(t.TempDir(), "config")
		if err := os.WriteFile(config, []byte("Host before\n    Port 1"+c.block()), 0o600); err != nil {
			t.Fatal(err)
		}
		var want []string
		if identity != "" {
			want = []string{"identitiesonly yes", "identityfile ~/" + strings.ReplaceAll(identity, "%", "%%")}
		}
		if c.domain != "" {
			host := "task-1." + c.domain
			got := settings(parsed(t, client, config, host), nothing)
			end := append(slices.Clone(want), `proxyjump "%n"@`+c.address())
			if slices.Sort(end); !slices.Equal(sorted(got), end) {
				t.Errorf("%s: ssh reads %q, want %q", host, got, end)
			}
		}
		own := want
		if c.port != "22" {
			own = append(slices.Clone(own), "port "+c.port)
		}
		if https != "" {
			own = append(slices.Clone(own), "proxycommand stagedoor proxy "+strings.TrimSuffix(c.host+" "+c.httpsPort, " 443"))
		}
		got := settings(parsed(t, client, config, c.host), nothing)
		if !matched(c.tasks, c.host) && !slices.Equal(sorted(got), sorted(own)) {
			t.Errorf("%s: ssh reads %q, want %q", c.host, got, own)
		}
		if c.host == unrelated || matched(c.tasks, unrelated) {
			return
		}
		if got := settings(parsed(t, client, config, unrelated), nothing); len(got) > 0 {
			t.Errorf("a host that has nothing to do with it: %q", got)
		}
	})
}

func sorted(lines []string) []string { return slices.Sorted(slices.Values(lines)) }

// matched tells whether a pattern takes a host for a task.
func matched(patterns []string, host string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		ok, err := filepath.Match(p, host)
		return ok && err == nil
	})
}

// TestSSHConfigWorks appends what is printed to files of ssh that were empty,
// and types what its comments say: nothing is asked, and end to end no other
// host is taken for the task's.
func TestSSHConfigWorks(t *testing.T) {
	t.Parallel()
	client := testenv.Need(t, "ssh")
	r := startDaemon(t, "")
	ca, other, user := testenv.NewKey(t, r.dir, "ca"), testenv.NewKey(t, r.dir, "other"), testenv.NewKey(t, r.dir, "users")
	alice := certified(t, r.dir, user, "task-1")
	hostKey := testenv.Signer(t)
	r.startHost(write(t, filepath.Join(r.dir, "keys"), "cert-authority "+user.Line+"\n"), func(a *agent.Agent) {
		cert, err := auth.IssueHostCertificate(ca.Signer, hostKey.PublicKey(), []string{"task-1", "task-1.localhost"}, time.Now().Add(-time.Minute), time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		a.HostKey, a.HostCertificate = hostKey, cert
	})
	_, sshPort, _ := net.SplitHostPort(r.sshAddress())
	_, httpsPort, _ := net.SplitHostPort(r.httpsAddress())
	gatewayKey, err := auth.LoadSigner(filepath.Join(r.dir, "state", hostKeyFile))
	if err != nil {
		t.Fatal(err)
	}
	host := write(t, filepath.Join(r.dir, "host.pub"), string(ssh.MarshalAuthorizedKey(gatewayKey.PublicKey())))
	enter := func(target string, ca testenv.Key, flags ...string) (string, error) {
		flags = append([]string{"ssh-config", "--gateway", "localhost:" + sshPort, "--host-ca", ca.File + ".pub", "--identity", alice}, flags...)
		config := printed(t, flags...)
		known := write(t, filepath.Join(t.TempDir(), "known_hosts"), printed(t, append(flags, "--known-hosts", "--host-key", host)...))
		config += "Host *\n    UserKnownHostsFile " + known + "\n    GlobalKnownHostsFile none\n    IdentityAgent none\n    BatchMode yes\n"
		cmd := exec.CommandContext(t.Context(), client, "-F", write(t, filepath.Join(t.TempDir(), "config"), config), target, "echo $STAGEDOOR_TASK")
		cmd.Env = append(os.Environ(), "STAGEDOOR_CA_FILE="+filepath.Join(r.dir, "cert.pem"))
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	for _, c := range []struct {
		target string
		flags  []string
	}{
		{"task-1.localhost", nil},
		{"Task-1.localhost", nil},
		{"somebody@task-1.localhost", nil},
		{"task-1", []string{"--tasks", "task-*"}},
		{"task-1@localhost", nil},
		{"task-1.localhost@localhost", nil},
		{"task-1.localhost", []string{"--over-https=" + httpsPort}},
		{"task-1@localhost", []string{"--over-https=" + httpsPort}},
	} {
		if out, err := enter(c.target, ca, c.flags...); err != nil || out != "task-1\n" {
			t.Errorf("ssh %s, %v: %v: %s\n%s", c.target, c.flags, err, out, r.log)
		}
	}
	if out, err := enter("task-1.localhost", other); err == nil || !strings.Contains(out, "Host key verification failed") {
		t.Errorf("with another authority: %v: %s", err, out)
	}
	if out, err := enter("task-2.localhost", ca); err == nil {
		t.Errorf("a task that is not there: %s", out)
	}
}

// printed runs the program and returns what it prints.
// A name that somebody else chose runs nothing: ssh hands it to a shell on the way
// to the gateway, in a directory that may be somebody else's too.
func TestSSHConfigWithHostileNames(t *testing.T) {
	client, dir := testenv.Need(t, "ssh"), t.TempDir()
	config := filepath.Join(dir, "config")
	listener := testenv.Listen(t) // a gateway that says nothing
	go func() {
		for c, err := listener.Accept(); err == nil; c, err = listener.Accept() {
			c.Close()
		}
	}()
	_, port, _ := net.SplitHostPort(listener.Addr().String())
	block := printed(t, "ssh-config", "--gateway", "gateway.test:"+port) + "Host gateway.test\n    HostName 127.0.0.1\n"
	for name, content := range map[string]string{
		"config": block, "run": "touch ran\n", "+.gateway.test": "", "-oProxyCommand=sh run #.gateway.test": "",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"*.gateway.test", "?*.gateway.test", "[+-]*.gateway.test", "~.gateway.test", "`sh${IFS}run`.gateway.test", "$(sh${IFS}run).gateway.test"} {
		cmd := exec.CommandContext(t.Context(), client, "-F", config, "-o", "BatchMode=yes", "-o", "ConnectTimeout=20", "--", name, "true")
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err == nil {
			t.Errorf("%s: it leads somewhere: %s", name, out)
		}
		if _, err := os.Stat(filepath.Join(dir, "ran")); err == nil {
			t.Fatalf("%s: it ran a command", name)
		}
	}
}

func printed(t *testing.T, args ...string) string {
	t.Helper()
	var stdout, stderr bytes.Buffer
	if err := run(t.Context(), args, nil, &stdout, &stderr); err != nil {
		t.Fatalf("%q: %v", args, err)
	}
	return stdout.String()
}

// certified makes a key in dir with a certificate by ca beside it, and returns
// its file.
func certified(t *testing.T, dir string, ca testenv.Key, principal string) string {
	t.Helper()
	key := testenv.NewKey(t, dir, "certified")
	keygen := exec.CommandContext(t.Context(), testenv.Need(t, "ssh-keygen"), "-q", "-s", ca.File, "-I", "alice", "-n", principal, key.File+".pub")
	if out, err := keygen.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return key.File
}

// The address that people type comes back as they would type it.
func TestGatewayAddress(t *testing.T) {
	for s, want := range map[string]string{
		"terminal.example.com":      "terminal.example.com:22",
		"TERMINAL.example.com:2222": "terminal.example.com:2222",
		"192.0.2.1":                 "192.0.2.1:22",
		"[::1]":                     "[::1]:22",
		"::1":                       "[::1]:22",
		"[::1]:1":                   "[::1]:1",
		"":                          "",
		":22":                       "",
		"a:":                        "",
		"a:b:c":                     "",
		"fe80::1%eth0":              "",
		"a..b":                      "",
		"127.1":                     "",
		"a.0x7f":                    "",
		"4.example":                 "4.example:22",
	} {
		host, port, err := parseGatewayAddress(s)
		got := net.JoinHostPort(host, port)
		if err != nil {
			got = ""
		}
		if got != want {
			t.Errorf("%q: %q, %v, want %q", s, got, err, want)
		}
	}
}
