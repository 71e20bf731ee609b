package main

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stagedoor/stagedoor/auth"
)

// TestTokenAsksTheInstalledGateway: its key may not be the one that it trusts.
func TestTokenAsksTheInstalledGateway(t *testing.T) {
	dir := t.TempDir()
	state := filepath.Join(dir, "state")
	t.Setenv("STATE_DIRECTORY", state)
	if _, _, err := auth.LoadOrCreateEd25519(filepath.Join(state, tokenKeyFile)); err != nil {
		t.Fatal(err)
	}
	mint := func(text string) error {
		file := write(t, filepath.Join(dir, "gateway.yaml"), text)
		o := tokenOptions{task: "t", ttl: 1 << 40, source: source{Installed: file}}
		var stdout, stderr bytes.Buffer
		return o.run(nil, &stdout, &stderr)
	}
	if err := mint("domain: a.example.com\n"); err != nil {
		t.Error(err)
	}
	err := mint("domain: a.example.com\nhosts: {token_keys: [ci.pub]}\n")
	if err == nil || !strings.Contains(err.Error(), "gateway.yaml:2: the gateway trusts its hosts.token_keys alone") {
		t.Errorf("a token that the gateway refuses: %v", err)
	}
	t.Setenv("STAGEDOOR_STATE_DIR", state)
	if err := mint("hosts: {token_keys: [ci.pub]}\n"); err != nil {
		t.Errorf("of another gateway: %v", err)
	}
}
