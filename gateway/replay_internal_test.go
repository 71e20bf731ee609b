package gateway

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// FailUsedTokens has no use of a token be noted any more, as on a full disk.
func (s *Server) FailUsedTokens() { s.used.Close() }

func agentKey(n byte) ed25519.PublicKey { return bytes.Repeat([]byte{n}, ed25519.PublicKeySize) }

func openTokens(t *testing.T, dir string) *usedTokens {
	t.Helper()
	u, err := openUsedTokens(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(u.Close)
	return u
}

// taken takes a token and returns the other agent that has it.
func taken(t *testing.T, u *usedTokens, name string, agent byte, until time.Time) ed25519.PublicKey {
	t.Helper()
	other, err := u.take(newTokenID("test", name), agentKey(agent), until)
	if err != nil {
		t.Fatal(err)
	}
	return other
}

func TestUsedTokens(t *testing.T) {
	dir := t.TempDir()
	later := time.Now().Add(time.Hour)
	u := openTokens(t, dir)
	for range 2 { // also after the file was read again
		for range 2 {
			if other := taken(t, u, "one", 1, later); other != nil {
				t.Errorf("the agent's own token is another's: %x", other)
			}
		}
		if other := taken(t, u, "one", 2, later); !bytes.Equal(other, agentKey(1)) {
			t.Errorf("the token of agent 1 is held to be that of %x", other)
		}
		u.Close()
		u = openTokens(t, dir)
	}
	if info, err := os.Stat(filepath.Join(dir, usedTokensFile)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, mode %v", err, info.Mode())
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*")); len(left) != 1 {
		t.Errorf("in the directory are %q", left)
	}
}

// TestUsedTokensEnd: a token is forgotten once it verifies no more, and not
// before; the file does not grow with those.
func TestUsedTokensEnd(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	u := openTokens(t, dir)
	now := time.Now()
	u.now = func() time.Time { return now }
	const many = 3 * minUsedTokenLines
	for i := range many {
		if taken(t, u, string(rune('a'+i)), 1, now.Add(time.Minute)) != nil {
			t.Fatal("a new token is another's")
		}
		now = now.Add(time.Second)
	}
	if u.lines > 2*minUsedTokenLines {
		t.Errorf("the file has %d lines after %d tokens of one minute each", u.lines, many)
	}
	if taken(t, u, string(rune('a'+many-60)), 2, now.Add(time.Minute)) == nil {
		t.Error("a token that is a minute old was forgotten")
	}
}

func TestUsedTokensAreBounded(t *testing.T) {
	u := openTokens(t, t.TempDir())
	now := time.Now()
	u.now, u.max = func() time.Time { return now }, 2
	taken(t, u, "one", 1, now.Add(time.Minute))
	taken(t, u, "two", 1, now.Add(time.Minute))
	if _, err := u.take(newTokenID("test", "three"), agentKey(1), now.Add(time.Minute)); !errors.Is(err, errTooManyTokens) {
		t.Errorf("a third token: %v, want %v", err, errTooManyTokens)
	}
	if taken(t, u, "one", 2, now.Add(time.Minute)) == nil {
		t.Error("the first token was forgotten for want of room")
	}
	now = now.Add(time.Minute + usedTokenMargin)
	if taken(t, u, "three", 1, now.Add(time.Minute)) != nil {
		t.Error("a new token is another's")
	}
}

// TestUsedTokensFile: a line that was cut off when the power failed is left out,
// and one that cannot be read keeps the gateway from starting.
func TestUsedTokensFile(t *testing.T) {
	later := time.Now().Add(time.Hour)
	write := func(t *testing.T, change func(string) string) string {
		dir := t.TempDir()
		u := openTokens(t, dir)
		taken(t, u, "one", 1, later)
		taken(t, u, "two", 1, later)
		u.Close()
		file := filepath.Join(dir, usedTokensFile)
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(change(string(data))), 0o600); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	u := openTokens(t, write(t, func(s string) string { return s[:len(s)-10] }))
	if taken(t, u, "one", 2, later) == nil || taken(t, u, "two", 2, later) != nil {
		t.Error("the line before the one that was cut off does not count, or that one does")
	}
	for name, change := range map[string]func(string) string{
		"garbage": func(s string) string { return "x" + s },
		"version": func(s string) string { return strings.Replace(s, `"v":1`, `"v":2`, 1) },
		"key":     func(s string) string { return strings.Replace(s, `"agent":"AQEB`, `"agent":"`, 1) },
	} {
		if _, err := openUsedTokens(write(t, change)); err == nil || !strings.Contains(err.Error(), "line 1") {
			t.Errorf("%s: %v, want an error that names the line", name, err)
		}
	}
}

func FuzzUsedTokensFile(f *testing.F) {
	id := newTokenID("test", "one")
	f.Add(tokenUse{until: 1 << 40}.line(id))
	f.Add([]byte(`{"v":1,"token":"","agent":"","until":1}` + "\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		u := &usedTokens{now: time.Now, used: map[tokenID]tokenUse{}}
		if u.read(data) != nil {
			return
		}
		for id := range u.used {
			if other, err := u.take(id, agentKey(9), time.Now()); err == nil && other == nil && u.used[id].agent != [32]byte(agentKey(9)) {
				t.Error("a token that was read is another's to take")
			}
		}
	})
}
