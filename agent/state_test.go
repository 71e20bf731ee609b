//go:build linux

package agent

import (
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/stagedoor/stagedoor/tunnel"
)

// Only what was there can be lost.
func TestLogOfATunnelThatNeverWas(t *testing.T) {
	key, _ := newSigner(t)
	logs := new(syncBuffer)
	a := new(Agent)
	a.server.Task, a.server.HostKey, a.server.Logger = "task-1", key, slog.New(slog.NewTextHandler(logs, nil))
	for _, step := range []struct {
		kind tunnel.StateKind
		want string
	}{
		{tunnel.StateLost, "cannot reach the gateway"},
		{tunnel.StateLost, "cannot reach the gateway"},
		{tunnel.StateConnected, "registered"},
		{tunnel.StateLost, "tunnel lost"},
		{tunnel.StateLost, "cannot reach the gateway"},
	} {
		logs.Reset()
		a.onState(tunnel.State{Kind: step.kind, Err: errors.New("why")})
		if !strings.Contains(logs.String(), step.want) {
			t.Errorf("%v: %s", step.kind, logs.String())
		}
	}
}
