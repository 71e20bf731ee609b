package auth

import (
	"strings"
	"testing"
)

// TestRefusalsUseShortNames: people write the short ones.
func TestRefusalsUseShortNames(t *testing.T) {
	none := noPermissions()
	for want, err := range map[string]error{
		"needs the permission port-forwarding,": AllowChannel(none, Guest, "direct-tcpip", nil),
		"needs the permission pty,":             AllowRequest(none, Guest, "session", "pty-req", nil),
		"needs the permission exec,":            AllowRequest(none, Guest, "session", "exec", nil),
		"needs the permission pty or exec,":     AllowRequest(none, Guest, "session", "shell", nil),
		"needs the permission sftp,":            AllowRequest(none, Guest, "session", "subsystem", []byte("\x00\x00\x00\x04sftp")),
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}
