//go:build linux

package agent

import (
	"slices"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
)

func TestEnvironmentOfAProgram(t *testing.T) {
	h := newTestHost(t, func(s *Server) {
		s.Env = append(s.Env, "TASK_VARIABLE=kept", "STAGEDOOR_GATEWAY=g", "SSH_TTY=/dev/old", "COLUMNS=7", "PATH=/usr/bin:/bin")
		s.AcceptEnv = []string{"MY_*", "LD_PRELOAD", "*"}
	})
	r := h.run(h.client("ssh", "-o", "SetEnv LANG=xx_YY LC_X=1 MY_Y=2 LD_PRELOAD=/x BASH_ENV=/x ENV=/x PATH=/evil STAGEDOOR_TASK=evil", "task", "env -0"), "")
	env := environ(strings.Split(strings.TrimSuffix(r.stdout, "\x00"), "\x00"))
	host, port, _ := strings.Cut(h.addr, ":")
	for name, want := range map[string]string{
		"TASK_VARIABLE": "kept", "STAGEDOOR": "1", "STAGEDOOR_TASK": "task-1", "STAGEDOOR_TOKEN": "", "STAGEDOOR_GATEWAY": "",
		"LANG": "xx_YY", "LC_X": "1", "MY_Y": "2", "LD_PRELOAD": "", "BASH_ENV": "", "ENV": "", "PATH": "/usr/bin:/bin",
		"HOME": h.home, "SHELL": "/bin/bash", "PWD": h.dir, "SSH_TTY": "", "COLUMNS": "",
	} {
		if got := env.get(name); got != want {
			t.Errorf("%s=%q, want %q", name, got, want)
		}
	}
	for _, name := range []string{"USER", "LOGNAME"} {
		if env.get(name) == "" {
			t.Errorf("%s is not set", name)
		}
	}
	client, connection := strings.Fields(env.get("SSH_CLIENT")), strings.Fields(env.get("SSH_CONNECTION"))
	if len(client) != 3 || client[0] != host || client[2] != port {
		t.Errorf("SSH_CLIENT=%q", client)
	}
	if len(connection) != 4 || !slices.Equal(connection[2:], []string{host, port}) || connection[1] != client[1] {
		t.Errorf("SSH_CONNECTION=%q", connection)
	}
	if strings.Contains(r.stdout, "secret") {
		t.Error("the token is in the environment")
	}
}

func TestGuestEnv(t *testing.T) {
	for _, test := range []struct {
		name, value string
		ok          bool
	}{
		{"LANG", "C", true}, {"LC_ALL", "C.UTF-8", true}, {"COLORTERM", "truecolor", true}, {"TERM", "xterm", true}, {"EXTRA", "", true}, {"GIT_PROTOCOL", "version=2", true},
		{"OTHER", "x", false}, {"", "x", false}, {"LC_A=B", "x", false}, {"LC_A\x00", "x", false}, {"LC_ALL", "a\x00b", false}, {"LC_X", "() { :; }; echo", false}, {"9LC", "", false},
		{"LD_PRELOAD", "x", false}, {"LD_LIBRARY_PATH", "x", false}, {"DYLD_INSERT_LIBRARIES", "x", false}, {"BASH_ENV", "x", false}, {"ENV", "x", false},
		{"BASH_FUNC_ls%%", "x", false}, {"PROMPT_COMMAND", "x", false}, {"PATH", "x", false}, {"STAGEDOOR", "x", false}, {"SSH_CONNECTION", "x", false},
		{"PYTHONPATH", "x", false}, {"NODE_OPTIONS", "x", false}, {"GIT_SSH_COMMAND", "x", false},
	} {
		g := guestEnv{patterns: []string{"EXTRA", "GIT_PROTOCOL", "LD_*", "BASH_*", "ENV", "P*", "STAGE*", "SSH_*", "NODE_OPTIONS", "GIT_*", "["}, variables: 5, bytes: 100}
		if got := g.set(test.name, test.value); got != test.ok {
			t.Errorf("%q=%q: %v", test.name, test.value, got)
		}
	}
	g := guestEnv{variables: 5, bytes: 10}
	if g.set("LANG", "1234567") || !g.set("LANG", "123456") || g.set("TERM", "") {
		t.Error("the bound on bytes is wrong")
	}
}

func TestDefaultsOfAnEmptyTask(t *testing.T) {
	home := t.TempDir() // without a .bashrc, which bash reads when it finds SSH_CLIENT
	h := newTestHost(t, func(s *Server) { s.Env = []string{"HOME=" + home} })
	r := h.ssh("", "echo $PATH; test -n \"$HOME$USER$LOGNAME\" && echo set")
	r.want(t, defaultPath+"\nset\n")
}

func TestShellOf(t *testing.T) {
	const passwd = "root:x:0:0:root:/root:/bin/zsh\nbroken\nci:x:1000:1000::/home/ci:/usr/sbin/nologin\n"
	for uid, want := range map[int]string{0: "/bin/zsh", 1000: "/usr/sbin/nologin", 7: ""} {
		if got := shellOf(strings.NewReader(passwd), uid); got != want {
			t.Errorf("%d: %q", uid, got)
		}
	}
	if !keepsOut("/usr/sbin/nologin") || !keepsOut("/bin/false") || keepsOut("/bin/fish") {
		t.Error("keepsOut")
	}
	if loginShell() == "" {
		t.Error("no login shell")
	}
}

func FuzzDecodeModes(f *testing.F) {
	f.Add([]byte{53, 0, 0, 0, 0, 0})
	f.Add([]byte{1, 0, 0, 0, 3, 159, 0, 0, 0, 1, 160, 0, 0, 0, 1, 53, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		modes := decodeModes(b)
		if len(modes) > len(b)/5 {
			t.Fatal("more modes than bytes")
		}
		for _, m := range modes {
			if m.op == opEnd || m.op >= opFirstUnknown {
				t.Fatalf("mode %d", m.op)
			}
		}
	})
}

// Requests of strangers reach this first.
func FuzzRequests(f *testing.F) {
	f.Add("pty-req", []byte{0, 0, 0, 1, 'x'})
	f.Add("env", ssh.Marshal(struct{ N, V string }{"LANG", "C"}))
	f.Add("subsystem", []byte{0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, kind string, payload []byte) {
		if kind == "shell" || kind == "exec" || kind == "pty-req" {
			return // these make processes and terminals
		}
		s := &session{guest: &guest{server: &Server{}, conn: &ssh.ServerConn{}}}
		if _, err := s.answer(&ssh.Request{Type: kind, Payload: payload}); err == nil {
			t.Fatal("a guest who has not signed in was answered")
		}
	})
}

// Names of signals on the wire carry no SIG, and local ones a suffix.
func TestSignalNames(t *testing.T) {
	for name, sig := range signalNames {
		if got := signalName(sig); got != name {
			t.Errorf("%v: %q, want %q", sig, got, name)
		}
	}
}
