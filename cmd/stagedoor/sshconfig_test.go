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
	"unicode"

	"github.com/stagedoor/stagedoor/internal/testenv"
)

// parsed is what the real ssh makes of a configuration for one host: its
// settings in order, without those of other lines that name the host.
func parsed(t testing.TB, ssh, config, host string) []string {
	t.Helper()
	cmd := exec.CommandContext(context.Background(), ssh, "-G", "-F", config, "--", host)
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
	ssh := testenv.Need(f, "ssh")
	dir := f.TempDir()
	empty := filepath.Join(dir, "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		f.Fatal(err)
	}
	const unrelated = "unrelated.test"
	nothing := parsed(f, ssh, empty, unrelated)
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
			got := settings(parsed(t, ssh, config, host), nothing)
			end := append(slices.Clone(want), "proxyjump %n@"+c.address())
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
		got := settings(parsed(t, ssh, config, c.host), nothing)
		if !matched(c.tasks, c.host) && !slices.Equal(sorted(got), sorted(own)) {
			t.Errorf("%s: ssh reads %q, want %q", c.host, got, own)
		}
		if c.host == unrelated || matched(c.tasks, unrelated) {
			return
		}
		if got := settings(parsed(t, ssh, config, unrelated), nothing); len(got) > 0 {
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
