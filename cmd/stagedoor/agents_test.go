package main

import (
	"crypto/sha256"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// agentsDir is a directory as make dist writes it.
func agentsDir(t *testing.T, dir string) string {
	t.Helper()
	dir = filepath.Join(dir, "agents")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	const agent = "an agent"
	write(t, filepath.Join(dir, "stagedoor-agent_linux_amd64"), agent)
	write(t, filepath.Join(dir, "SHA256SUMS"), fmt.Sprintf("%x  stagedoor-agent_linux_amd64\n", sha256.Sum256([]byte(agent))))
	return dir
}

// TestAgents: the gateway hands them out under the name that is configured, with
// the port that the system chose.
func TestAgents(t *testing.T) {
	r := startDaemon(t, "")
	agentsDir(t, r.dir)
	page := "https://" + r.httpsAddress() + "/install"
	if _, body, _ := get(t, page); !strings.Contains(body, "https:\n      agents: ") {
		t.Errorf("without agents: %s", body)
	}
	t.Setenv("STAGEDOOR_HTTPS_AGENTS", filepath.Join(r.dir, "agents"))
	r.signal(syscall.SIGHUP)
	r.log.await(t, "configuration reloaded", 1)
	_, port, _ := net.SplitHostPort(r.httpsAddress())
	if _, body, _ := get(t, page); !strings.Contains(body, "https://localhost:"+port+"/agents/$name") || !strings.Contains(body, "linux/amd64)") {
		t.Errorf("with agents: %s", body)
	}
}

func TestAgentsAreChecked(t *testing.T) {
	dir := t.TempDir()
	agents := agentsDir(t, dir)
	text := func(agents string) string {
		return "domain: a.example.com\nstate_dir: " + t.TempDir() + "\nhttps: {agents: " + agents + "}\n"
	}
	for _, c := range []struct{ agents, damage, want string }{
		{agents, "", ""},
		{"off", "", ""},
		{filepath.Join(dir, "none"), "", "no such file"},
		{dir, "", "there is no SHA256SUMS"},
		{agents, "half of an a", "is not what SHA256SUMS says"},
	} {
		if c.damage != "" {
			write(t, filepath.Join(agents, "stagedoor-agent_linux_amd64"), c.damage)
		}
		config, r := loadText(t, text(c.agents))
		var asked partners
		config.settings(r, &certificates{}, &asked, false)
		asked.close()
		if got := mistakesIn(r); c.want == "" && got != "" || !strings.Contains(got, c.want) || c.want != "" && !strings.Contains(got, "https.agents: ") {
			t.Errorf("%s: %q, want %q", c.agents, got, c.want)
		}
	}
}

func TestHTTPSAddress(t *testing.T) {
	for text, want := range map[string]string{
		"domain: a.example.com":                                                                                       "a.example.com:443",
		"domain: a.example.com\nhttps: {listen: ':8443'}":                                                             "a.example.com:8443",
		"domain: a.example.com\nhttps: {listen: ':8443', address: 'b.example.com:443'}":                               "b.example.com:443",
		"https: {listen: '127.0.0.1:8443', certificate: a.pem, key: b.pem}\nssh: {address: 'b.example.com:2222'}":     "b.example.com:8443",
		"domain: a.example.com\nhttps: {listen: ':8443', address: 'b.example.com'}":                                   "not of the form host:port",
		"domain: a.example.com\nhttps: {listen: ':8443', address: \"$(id):443\"}":                                     "neither a DNS name nor",
		"https: {listen: ':8443', certificate: a.pem, key: b.pem, address: 'b.example.com:1'}\nssh: {address: 'c:2'}": "b.example.com:1",
	} {
		c, r := loadText(t, text+"\n")
		if got := mistakesIn(r); got != "" {
			if !strings.Contains(got, want) {
				t.Errorf("%s: %s, want %q", text, got, want)
			}
			continue
		}
		if got := c.httpsAddress(); got != want {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
}
