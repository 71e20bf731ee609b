package main

import (
	"bytes"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stagedoor/stagedoor/auth"
)

// TestTokenBoundsHold: what is not said is left to the job, and nothing is something that can be said.
func TestTokenBoundsHold(t *testing.T) {
	key := filepath.Join(t.TempDir(), "key")
	if _, _, err := auth.LoadOrCreateEd25519(key); err != nil {
		t.Fatal(err)
	}
	mint := func(args ...string) (string, error) {
		var stdout, stderr bytes.Buffer
		cmd := newTokenCommand()
		cmd.SetArgs(append([]string{"--task", "t", "--key", key}, args...))
		cmd.SetOut(&stdout)
		cmd.SetErr(&stderr)
		cmd.SilenceErrors, cmd.SilenceUsage = true, true
		if err := cmd.Execute(); err != nil {
			return "", err
		}
		token, err := auth.DecodeToken(strings.TrimSpace(stdout.String()))
		if err != nil {
			t.Fatal(err)
		}
		if token.Grant.Hold == nil {
			return "", nil
		}
		text, err := token.Grant.Hold.MarshalJSON()
		return string(text), err
	}
	for args, want := range map[string]string{
		"":                "",
		"--hold-hard 20m": `{"hard":"20m0s"}`,
		"--hold-wait 0 --hold-grace 90s --hold-hard 2h": `{"grace":"1m30s","hard":"2h0m0s","wait":"0s"}`,
	} {
		if got, err := mint(strings.Fields(args)...); err != nil || got != want {
			t.Errorf("%s: %s, %v", args, got, err)
		}
	}
	if _, err := mint("--hold-hard", "-1s"); err == nil || !strings.Contains(fmt.Sprint(err), "--hold-hard -1s: it is negative") {
		t.Errorf("%v", err)
	}
}
