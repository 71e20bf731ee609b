//go:build linux

package auth

import (
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/internal/testenv"
)

// TestRevokedKeysAgreesWithSSHD: whom a real sshd keeps out by RevokedKeys is kept
// out here, by lists of both kinds.
func TestRevokedKeysAgreesWithSSHD(t *testing.T) {
	testenv.Need(t, "ssh-keygen")
	r := newRevocable(t)
	s := startSSHD(t)
	lists := map[string]string{
		"binary": r.list([]string{"-s", "ca.pub"}, "serial: 1\nserial: 10-20\nid: bob@example.com\nhash: "+ssh.FingerprintSHA256(r.keys["other"])+"\n"),
		"plain":  writeFile(t, 0o600, []byte("# a comment\n"+line(r.keys["bob"], "bob")+"\n"), r.dir, "plain"),
		"cut":    writeFile(t, 0o600, readFile(t, r.list([]string{"-s", "ca.pub"}, "serial: 77\n"))[:60], r.dir, "cut"),
	}
	var authorized strings.Builder
	for _, name := range []string{"alice", "bob", "other"} {
		authorized.WriteString(line(r.keys[name], name) + "\n")
	}
	for _, ca := range []string{"ca", "other"} {
		authorized.WriteString(`cert-authority,principals="anybody" ` + line(r.keys[ca], ca) + "\n")
	}
	writeFile(t, 0o600, []byte(authorized.String()), s.keys)
	config := string(readFile(t, s.config))
	for name, file := range lists {
		writeFile(t, 0o600, []byte(config+"RevokedKeys "+file+"\n"), s.config)
		list, err := ParseRevokedKeys(name, readFile(t, file))
		for _, who := range []string{"alice", "bob", "other", "alice-0", "alice-1", "alice-15", "alice-21", "alice-other", "bob-6"} {
			client, refused := s.dial(t, r.sign[who], "127.0.0.1")
			if client != nil {
				client.Close()
			}
			if here := err != nil || list.Check(r.keys[who]) != nil; here != refused {
				t.Errorf("%s list, %s: revoked %v, by sshd %v", name, who, here, refused)
			}
		}
	}
}
