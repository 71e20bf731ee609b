//go:build unix

package main

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stagedoor/stagedoor/internal/testenv"
)

// TestMain makes the test binary what hosts run, as the bench itself is.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == hostCommand {
		if err := hostSide(os.Args[2:], os.Stdin, os.Stdout); err != nil {
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// TestRun measures every kind of contender for a moment, with their real programs.
func TestRun(t *testing.T) {
	testenv.Need(t, "ssh")
	testenv.Need(t, "sshd")
	file := filepath.Join(t.TempDir(), "result.json")
	contenders := []string{baseline, "stagedoor", "reverse"} // one of each kind
	var table, progress strings.Builder
	err := run(t.Context(), []string{"-contenders", strings.Join(contenders, ","), "-rounds", "2", "-size", "1M", "-echoes", "5", "-connects", "1", "-json", file}, &table, &progress)
	if err != nil {
		t.Fatalf("%v\n%s", err, progress.String())
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var r report
	if err := json.Unmarshal(data, &r); err != nil {
		t.Fatal(err)
	}
	if got := len(r.Contenders); got != len(contenders) {
		t.Errorf("%d contenders in the report", got)
	}
	for _, c := range r.Contenders {
		if c.KeyExchange != "curve25519-sha256" {
			t.Errorf("%s used another key exchange than the others: %s", c.Name, c.KeyExchange)
		}
	}
	for _, res := range r.Results {
		// sshd has no gateway, and may have no terminals: see prepareEcho.
		unpaired := strings.HasSuffix(res.Figure, "gateway") || strings.HasPrefix(res.Figure, "echo pty") && os.Geteuid() != 0
		if len(res.Values) != 2 || res.Ratio == nil && !unpaired {
			t.Errorf("incomplete: %+v", res)
		}
		if res.Median <= 0 {
			t.Errorf("%s of %s: %v %s", res.Figure, res.Contender, res.Median, res.Unit)
		}
	}
	if !strings.Contains(table.String(), "stagedoor") {
		t.Errorf("table:\n%s", table.String())
	}
}

// TestInterrupted: whatever ends the bench, nothing of it stays.
func TestInterrupted(t *testing.T) {
	testenv.Need(t, "ssh")
	testenv.Need(t, "sshd")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	l, err := newLab(ctx, &options{kex: "curve25519-sha256"}, t.Output())
	if err != nil {
		t.Fatal(err)
	}
	entrants, err := l.enter(ctx, []contender{reverse{}})
	if err != nil {
		l.close()
		t.Fatal(err)
	}
	e := entrants[0]
	cmd := e.sshCommand(ctx, nil, shellQuote(l.self), hostCommand, string(download), "1000000000000", "false")
	stdin, stdout, err := startPiped(cmd)
	if err != nil {
		l.close()
		t.Fatal(err)
	}
	defer stdin.Close()
	defer stdout.Close()
	if err := expect(stdout, greeting); err != nil {
		t.Error(err)
	}
	if _, err := stdin.WriteString(start); err != nil {
		t.Error(err)
	}
	if err := expect(stdout, string(block()[:1])); err != nil {
		t.Error(err)
	}
	cancel()
	if err := consume(stdout, 1e12, false); err == nil {
		t.Error("a terabyte was transferred")
	}
	if err := cmd.Wait(); err == nil {
		t.Error("ssh ended well")
	}
	l.close()
	for _, p := range l.servers {
		select {
		case <-p.done:
		default:
			t.Errorf("%s still runs", p.name)
		}
	}
	if _, err := os.Stat(l.dir); !os.IsNotExist(err) {
		t.Errorf("the directory is still there: %v", err)
	}
}
