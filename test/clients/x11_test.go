package clients

import (
	"bufio"
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stagedoor/stagedoor/internal/testenv"
)

// forwardsX11 checks that a program on the host shows up on the guest's display.
func forwardsX11(run runner) check {
	return func(t *testing.T, g *guest) {
		testenv.Need(t, "xdpyinfo")
		d := newDisplay(t)
		cmd := run(t, g, "xdpyinfo")
		cmd.Env = append(cmd.Env, "DISPLAY="+d.name, "XAUTHORITY="+d.authority, "COOKIE="+d.cookie)
		if out := mustRun(t, cmd); !strings.Contains(out, "1234x567") {
			t.Errorf("the host sees another display:\n%s", out)
		}
	}
}

// display is an X server that lets in who has its cookie.
type display struct {
	name      string // for DISPLAY
	authority string // file with the cookie
	cookie    string // in hexadecimal
}

func newDisplay(t *testing.T) display {
	t.Helper()
	xvfb, xauth := testenv.Need(t, "Xvfb"), testenv.Need(t, "xauth")
	d := display{authority: filepath.Join(t.TempDir(), "authority"), cookie: hex.EncodeToString(randomBytes(16))}
	// The server takes any entry of its file, the guest's name is known below.
	mustRun(t, exec.CommandContext(t.Context(), xauth, "-q", "-f", d.authority, "add", ":0", ".", d.cookie))
	server := exec.Command(xvfb, "-displayfd", "3", "-auth", d.authority, "-nolisten", "tcp", "-screen", "0", "1234x567x24")
	read, write, err := os.Pipe()
	mustDo(t, err)
	defer read.Close()
	server.ExtraFiles = []*os.File{write}
	start(t, server)
	write.Close()
	number, err := bufio.NewReader(read).ReadString('\n')
	if err != nil {
		t.Fatalf("Xvfb does not start: %v", err)
	}
	d.name = ":" + strings.TrimSpace(number)
	mustRun(t, exec.CommandContext(t.Context(), xauth, "-q", "-f", d.authority, "add", d.name, ".", d.cookie))
	return d
}
