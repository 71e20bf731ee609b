//go:build linux

package agent

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/auth"
)

// text is a payload of one text.
func text(s string) []byte { return ssh.Marshal(struct{ S string }{s}) }

// goodPayloads are requests as they should be.
var goodPayloads = map[string][]byte{
	"pty-req":                    ptyRequest("xterm", 80, 24, []byte{0}),
	"env":                        ssh.Marshal(struct{ N, V string }{"LC_X", "1"}),
	"shell":                      {},
	"exec":                       text("true"),
	"subsystem":                  text("sftp"),
	"window-change":              ssh.Marshal(winsize{80, 24, 0, 0}),
	"signal":                     text("WINCH"),
	"break":                      ssh.Marshal(struct{ L uint32 }{100}),
	"x11-req":                    x11Payload(false, "MIT-MAGIC-COOKIE-1", "00ff", 0),
	"auth-agent-req@openssh.com": {},
	"agent-req":                  {},
	"eow@openssh.com":            {},
}

// malformed makes what is none of a good payload: cut off anywhere, gone on behind its end, with lengths that lie.
func malformed(good []byte) (bad [][]byte) {
	for n := range good {
		bad = append(bad, good[:n])
	}
	bad = append(bad, append(bytes.Clone(good), 0), append(bytes.Clone(good), "more"...))
	for i := 0; i+4 <= len(good); i++ {
		lie := bytes.Clone(good)
		copy(lie[i:], "\xff\xff\xff\xff")
		if !bytes.Equal(lie, good) && !readable(lie) {
			bad = append(bad, lie)
		}
	}
	return bad
}

// readable tells whether a payload with four bytes changed is one still: a number or a text has changed then.
func readable(payload []byte) bool {
	_, pty := parseTerminalRequest(payload)
	_, _, env := parseEnv(payload)
	_, text := parseText(payload)
	_, size := parseWindowChange(payload)
	_, length := parseBreak(payload)
	_, x11 := parseX11Request(payload)
	return pty == nil || env == nil || text == nil || size == nil || length == nil || x11 == nil
}

// A malformed payload gets a failure, before a program has started and while one runs; it harms neither its session nor others.
func TestMalformedPayloads(t *testing.T) {
	h := newTestHost(t, nil)
	c := h.dial()
	fresh := openSession(t, c)
	running := openSession(t, c)
	must(t, request(running, "pty-req", goodPayloads["pty-req"]))
	must(t, request(running, "exec", text("read x; echo got $x; stty size")))
	count := 0
	for name, good := range goodPayloads {
		for _, payload := range malformed(good) {
			for _, ch := range []ssh.Channel{fresh, running} {
				count++
				if request(ch, name, payload) == nil {
					t.Errorf("%s with %q was accepted", name, payload)
				}
			}
		}
	}
	if count < 300 {
		t.Errorf("only %d tries", count)
	}
	must(t, request(fresh, "exec", text("echo ran; env | grep -c -e ^LC_X -e ^DISPLAY=localhost -e ssh-")))
	if out := readAll(t, fresh); out != "ran\n0\n" {
		t.Errorf("%q", out)
	}
	running.Write([]byte("this\n"))
	if out := readAll(t, running); !strings.Contains(out, "got this\r\n24 80") {
		t.Errorf("%q", out)
	}
	if out := output(t, c, "echo alive"); out != "alive\n" {
		t.Errorf("%q", out)
	}
}

func readAll(t *testing.T, ch ssh.Channel) string {
	t.Helper()
	var b bytes.Buffer
	_, err := b.ReadFrom(ch)
	must(t, err)
	return b.String()
}

// A text with a NUL cannot be given to a program: sshd hangs up, here the request fails.
func TestNULsAreRefused(t *testing.T) {
	h := newTestHost(t, nil)
	c := h.dial()
	ch := openSession(t, c)
	for name, payload := range map[string][]byte{
		"pty-req": ptyRequest("xterm\x00LD_PRELOAD=x", 80, 24, nil), "exec": text("true\x00"), "subsystem": text("sftp\x00"), "env": ssh.Marshal(struct{ N, V string }{"LC_X", "a\x00b"}),
		"x11-req": x11Payload(false, "MIT\x00", "00", 0),
	} {
		if request(ch, name, payload) == nil {
			t.Errorf("%s was accepted", name)
		}
	}
	must(t, request(ch, "exec", text("echo $TERM")))
	ch.Close()
}

// What is not on the list fails too, with and without a payload, and an extreme size is only clipped.
func TestUnknownAndExtremeRequests(t *testing.T) {
	h := newTestHost(t, nil)
	c := h.dial()
	ch := openSession(t, c)
	for _, name := range []string{"", "bogus", "exit-status", "xon-xoff", strings.Repeat("x", 30000)} {
		for _, payload := range [][]byte{nil, []byte("x"), bytes.Repeat([]byte("x"), 30000)} {
			if request(ch, name, payload) == nil {
				t.Errorf("%.20q was accepted", name)
			}
		}
	}
	huge := uint32(1<<32 - 1)
	must(t, request(ch, "pty-req", ptyRequest(strings.Repeat("x", 1000), huge, huge, bytes.Repeat([]byte{255}, 10000))))
	must(t, request(ch, "window-change", ssh.Marshal(winsize{huge, huge, huge, huge})))
	must(t, request(ch, "exec", text("stty size")))
	if out := readAll(t, ch); out != "65535 65535\r\n" {
		t.Errorf("%q", out)
	}
}

// ssh(1) sends no-more-sessions right behind its session, which must not be overtaken; later ones are refused.
func TestNoMoreSessions(t *testing.T) {
	t.Parallel()
	h := newTestHost(t, nil)
	for range 20 {
		h.run(h.client("ssh", "-S", "none", "task", "echo in"), "").want(t, "in\n")
	}
	c := h.dial()
	ch := openSession(t, c)
	ok, _, err := c.SendRequest("no-more-sessions@openssh.com", true, nil)
	if !ok || err != nil {
		t.Fatal(ok, err)
	}
	if _, _, err := c.OpenChannel("session", nil); err == nil {
		t.Error("another session began")
	}
	must(t, request(ch, "exec", text("true")))
}

func FuzzSessionPayloads(f *testing.F) {
	for _, good := range goodPayloads {
		f.Add(good)
		f.Add(append(bytes.Clone(good), 0))
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		if r, err := parseTerminalRequest(payload); err == nil && !bytes.Equal(ssh.Marshal(r), payload) {
			t.Errorf("pty-req: %+v", r)
		}
		if name, value, err := parseEnv(payload); err == nil {
			g := guestEnv{patterns: []string{"*"}, variables: 1, bytes: 1 << 20}
			if g.set(name, value) && (len(g.vars) != 1 || strings.ContainsRune(g.vars[0], 0) || !strings.HasPrefix(g.vars[0], name+"=")) {
				t.Errorf("env: %q", g.vars)
			}
		}
		if s, err := parseText(payload); err == nil && (strings.ContainsRune(s, 0) || !bytes.Equal(text(s), payload)) {
			t.Errorf("text: %q", s)
		}
		if size, err := parseWindowChange(payload); err == nil && !bytes.Equal(ssh.Marshal(size), payload) {
			t.Errorf("window-change: %+v", size)
		}
		if n, err := parseBreak(payload); err == nil && len(payload) != 4 {
			t.Errorf("break: %d", n)
		}
		if parseNothing(payload) == nil && len(payload) > 0 {
			t.Error("trailing data")
		}
		if r, err := parseX11Request(payload); err == nil {
			line := fmt.Sprintf("%s %s", r.Protocol, r.Cookie)
			if strings.Trim(line, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789- ") != "" || len(strings.Fields(line)) != 2 {
				t.Errorf("x11-req: %q", line)
			}
		}
	})
}

// FuzzSubsystem: what the table of permissions and the agent each read of a subsystem request is the same.
func FuzzSubsystem(f *testing.F) {
	f.Add(text("sftp"))
	f.Add(text("sftp\x00x"))
	f.Fuzz(func(t *testing.T, payload []byte) {
		p := &ssh.Permissions{Extensions: map[string]string{auth.PermitSFTP: ""}}
		allowed := auth.AllowRequest(p, auth.Guest, "session", "subsystem", payload) == nil
		if s, err := parseText(payload); allowed && (err != nil || s != "sftp") {
			t.Errorf("%q passes for sftp", payload)
		}
	})
}
