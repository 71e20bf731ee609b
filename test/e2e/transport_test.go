package e2e

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/internal/testenv"
)

// TestTransport looks at the gateway as any stranger can, and at the connection
// of a guest who moves more than one key is meant for.
func TestTransport(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.startAgent(nil)
	t.Run("key exchange", func(t *testing.T) { testKeyExchange(t, w.ssh) })
	t.Run("audit", func(t *testing.T) { testAudit(t, w.ssh) })
	t.Run("rekey", func(t *testing.T) {
		testRekey(t, w.in(t).command("ssh", "-v", "-o", "RekeyLimit=1M", w.target(), "cat"), 24<<20)
	})
}

// testKeyExchange reads the server's KEXINIT.
func testKeyExchange(t *testing.T, address string) {
	c, err := net.Dial("tcp", address)
	mustDo(t, err)
	defer c.Close()
	offer, err := readKexInit(c)
	mustDo(t, err)
	if first := offer.KeyExchanges[0]; first != "mlkem768x25519-sha256" {
		t.Errorf("first key exchange: %s, which no quantum computer may break", first)
	}
	// The defence against Terrapin (CVE-2023-48795), OpenSSH PROTOCOL, section 1.10.
	if !slices.Contains(offer.KeyExchanges, "kex-strict-s-v00@openssh.com") {
		t.Errorf("no strict key exchange among %q", offer.KeyExchanges)
	}
	old := regexp.MustCompile(`sha1|-cbc|md5|arcfour|3des|ssh-dss|^ssh-rsa$|^none$`)
	for _, names := range [][]string{offer.KeyExchanges, offer.HostKeys, offer.CiphersIn, offer.CiphersOut, offer.MACsIn, offer.MACsOut} {
		for _, name := range names {
			if old.MatchString(name) && name != "hmac-sha1-etm" {
				t.Errorf("%s is offered", name)
			}
		}
	}
}

// kexInit is SSH_MSG_KEXINIT, RFC 4253 §7.1, as a server sends it.
type kexInit struct {
	Cookie                      [16]byte `sshtype:"20"`
	KeyExchanges, HostKeys      []string
	CiphersIn, CiphersOut       []string
	MACsIn, MACsOut             []string
	CompressionIn, CompressionO []string
	LanguagesIn, LanguagesOut   []string
	FirstPacketFollows          bool
	Reserved                    uint32
}

// readKexInit speaks SSH as far as the first packet, which is not encrypted yet.
func readKexInit(c io.ReadWriter) (*kexInit, error) {
	if _, err := io.WriteString(c, "SSH-2.0-test\r\n"); err != nil {
		return nil, err
	}
	one := make([]byte, 1)
	for one[0] != '\n' { // byte by byte: what follows the line is the packet's
		if _, err := io.ReadFull(c, one); err != nil {
			return nil, err
		}
	}
	header := make([]byte, 5) // length of the packet, length of its padding
	if _, err := io.ReadFull(c, header); err != nil {
		return nil, err
	}
	length := binary.BigEndian.Uint32(header)
	if length > 35000 || length < 2+uint32(header[4]) {
		return nil, errors.New("no packet")
	}
	packet := make([]byte, length-1)
	if _, err := io.ReadFull(c, packet); err != nil {
		return nil, err
	}
	k := new(kexInit)
	return k, ssh.Unmarshal(packet[:len(packet)-int(header[4])], k)
}

// auditRemarks are what ssh-audit may say, and why that cannot be avoided.
var auditRemarks = map[string]string{
	"mlkem768x25519-sha256 [warn] unknown algorithm":        "Debian's ssh-audit is older than the algorithm",
	"kex-strict-s-v00@openssh.com [warn] unknown algorithm": "Debian's ssh-audit is older than the defence, which is no algorithm",
	"hmac-sha2-256 [warn] using encrypt-and-MAC mode":       "dropbear and libssh2 of Debian 12 know nothing better to go with AES-CTR",
}

var auditLine = regexp.MustCompile(`^\((?:kex|key|enc|mac)\) (\S+)|\[(fail|warn)\] (.*)$`)

// testAudit runs ssh-audit. Its JSON has no remarks in the version of Debian 12,
// its text does: an algorithm, then a remark on the same line or the next ones.
func testAudit(t *testing.T, address string) {
	host, port, err := net.SplitHostPort(address)
	mustDo(t, err)
	ctx, cancel := contextFor(t)
	defer cancel()
	cmd := exec.CommandContext(ctx, testenv.Need(t, "ssh-audit"), "--no-colors", "--timeout", "60", "--port", port, host)
	out, err := cmd.Output() // its status tells about remarks alone
	if !bytes.Contains(out, []byte("(kex) mlkem768x25519-sha256")) {
		t.Fatalf("ssh-audit did not see the server: %v\n%s", err, out)
	}
	var algorithm string
	for line := range strings.Lines(string(out)) {
		for _, m := range auditLine.FindAllStringSubmatch(strings.TrimSpace(line), -1) {
			if m[1] != "" {
				algorithm = m[1]
				continue
			}
			if remark := fmt.Sprintf("%s [%s] %s", algorithm, m[2], strings.TrimSpace(m[3])); auditRemarks[remark] == "" {
				t.Errorf("ssh-audit: %s", remark)
			}
		}
	}
}

// testRekey passes bytes through cat while the client changes keys after each MiB,
// counted both ways.
func testRekey(t *testing.T, cat *exec.Cmd, size int) {
	data, want := noise(size)
	cat.Stdin = bytes.NewReader(data)
	var log bytes.Buffer
	cat.Stderr = &log
	stdout, err := cat.StdoutPipe()
	mustDo(t, err)
	start := time.Now()
	mustDo(t, cat.Start())
	got, n, err := checksum(stdout)
	mustDo(t, err)
	if err := cat.Wait(); err != nil {
		t.Fatalf("%v after %d bytes\n%s", err, n, tail(log.String()))
	}
	if got != want {
		t.Errorf("other bytes came back, %d of %d", n, len(data))
	}
	exchanges := strings.Count(log.String(), "SSH2_MSG_NEWKEYS received")
	if exchanges < size>>20 {
		t.Errorf("%d key exchanges for %d bytes each way", exchanges, size)
	}
	t.Logf("%d key exchanges in %v", exchanges, time.Since(start).Round(time.Millisecond))
}

// tail is the end of a long log.
func tail(s string) string { return s[max(0, len(s)-4000):] }
