package gateway

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/auth"
	"github.com/stagedoor/stagedoor/internal/testenv"
)

func mustOpenBlocks(t *testing.T, dir string) *blocks {
	t.Helper()
	b, err := openBlocks(dir)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestBlocksOutliveTheGateway: those in force, and what an operator ended.
func TestBlocksOutliveTheGateway(t *testing.T) {
	dir := t.TempDir()
	b := mustOpenBlocks(t, dir)
	now := time.Now().UTC()
	over, later := now.Add(-time.Second), now.Add(time.Hour)
	for _, block := range []Block{
		{Identity: "github:alice", At: now.Add(-time.Minute)},
		{Task: "task-1", At: now, Until: &later},
		{Task: "task-2", At: now, Until: &over},
	} {
		if err := b.add(block); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.end("task-3", now, "why"); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(filepath.Join(dir, blocksFile)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file: %v, %v", info, err)
	}
	b = mustOpenBlocks(t, dir)
	if all := b.all(); len(all) != 2 || all[0].Identity != "github:alice" || all[1].Task != "task-1" {
		t.Errorf("blocked are %+v", all)
	}
	if b.ofName("GitHub:Alice") == nil || b.ofName("github:bob") != nil || b.ofName("") != nil || b.ofTask("") != nil {
		t.Error("other names are blocked than should be")
	}
	for _, c := range []struct {
		task   auth.TaskID
		issued time.Time
		want   bool
	}{
		{"task-1", now, true}, {"task-2", now, false}, {"task-3", now, true}, {"task-3", now.Add(-time.Hour), true},
		{"task-3", now.Add(time.Second), false}, {"task-4", now, false},
	} {
		if err := b.refusal(registration{task: c.task, generation: c.issued}); (err != nil) != c.want {
			t.Errorf("%s of %v: %v", c.task, c.issued.Sub(now), err)
		}
	}
	if had, err := b.remove(subject{task: "task-1"}); !had || err != nil || mustOpenBlocks(t, dir).ofTask("task-1") != nil {
		t.Errorf("taken back: %v, %v", had, err)
	}
}

// TestBlocksFailClosed: a file that cannot be read or written lets nobody in who
// is blocked, and blocks nobody for a while only.
func TestBlocksFailClosed(t *testing.T) {
	dir := t.TempDir()
	for _, text := range []string{"", "{", `{"v":2}`, `{"blocks":[]}`} {
		if err := os.WriteFile(filepath.Join(dir, blocksFile), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := openBlocks(dir); err == nil || !strings.Contains(err.Error(), blocksFile) {
			t.Errorf("%q: %v", text, err)
		}
	}
	b := mustOpenBlocks(t, t.TempDir())
	b.path = filepath.Join(b.path, "none", "blocks.json")
	if err := b.add(Block{Task: "task-1"}); err == nil || b.ofTask("task-1") != nil {
		t.Errorf("a block that would not outlive the gateway: %v", err)
	}
}

// everybody lets in anyone under one name.
type everybody struct{}

func (everybody) Authorize(context.Context, auth.Identity, auth.Task) (*ssh.Permissions, error) {
	return &ssh.Permissions{Extensions: map[string]string{auth.ExtIdentity: "Alice"}}, nil
}

// TestGuard refuses by key, by the authority of a certificate, by name and by
// task, and nobody else.
func TestGuard(t *testing.T) {
	key, ca := testenv.Signer(t), testenv.Signer(t)
	cert := &ssh.Certificate{Key: key.PublicKey(), CertType: ssh.UserCert}
	if err := cert.SignCert(strings.NewReader(strings.Repeat("x", 32)), ca); err != nil {
		t.Fatal(err)
	}
	print := func(s ssh.Signer) string { return ssh.FingerprintSHA256(s.PublicKey()) }
	for _, c := range []struct {
		block Block
		key   ssh.PublicKey
		want  bool
	}{
		{Block{Key: print(key)}, key.PublicKey(), true},
		{Block{Key: print(key)}, cert, true},
		{Block{Key: print(ca)}, cert, true},
		{Block{Key: print(ca)}, key.PublicKey(), false},
		{Block{Identity: "alice"}, key.PublicKey(), true},
		{Block{Identity: "bob"}, key.PublicKey(), false},
		{Block{Task: "task-1"}, key.PublicKey(), true},
		{Block{Task: "task-2"}, key.PublicKey(), false},
	} {
		b := mustOpenBlocks(t, "")
		if err := b.add(c.block); err != nil {
			t.Fatal(err)
		}
		p, err := guard{everybody{}, b, nil}.Authorize(t.Context(), auth.Identity{Key: c.key}, auth.Task{ID: "task-1"})
		if got := errors.Is(err, auth.ErrDenied); got != c.want || got == (p != nil) {
			t.Errorf("%+v: %v, %v", c.block, p, err)
		}
	}
}

// TestBlocksAreShared by a gateway that drains and its successor: neither forgets
// what the other wrote.
func TestBlocksAreShared(t *testing.T) {
	dir := t.TempDir()
	older, newer := mustOpenBlocks(t, dir), mustOpenBlocks(t, dir)
	for b, block := range map[*blocks]Block{older: {Identity: "alice", At: time.Now()}, newer: {Identity: "bob", At: time.Now()}} {
		if err := b.add(block); err != nil {
			t.Fatal(err)
		}
	}
	if all := mustOpenBlocks(t, dir).all(); len(all) != 2 {
		t.Errorf("the file has %+v", all)
	}
	for _, b := range []*blocks{older, newer} {
		if _, err := b.refresh(); err != nil {
			t.Fatal(err)
		}
		if changed, err := b.refresh(); changed || err != nil {
			t.Errorf("nothing was written: %v, %v", changed, err)
		}
		if b.ofName("alice") == nil || b.ofName("bob") == nil {
			t.Errorf("blocked are %+v", b.all())
		}
	}
	if err := os.WriteFile(filepath.Join(dir, blocksFile), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := older.add(Block{Identity: "carol"}); err == nil || older.ofName("alice") == nil {
		t.Errorf("a broken file: %v, and blocked are %+v", err, older.all())
	}
}
