package agent

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/crypto/ssh"
)

const (
	// firstDisplay and displays are sshd's X11DisplayOffset and how many it tries: what is below belongs to real screens.
	firstDisplay, displays = 10, 1000
	// firstX11Port is the port of display 0.
	firstX11Port = 6000
	// xauthPatience bounds how long xauth may hold up the requests of its session. It takes some milliseconds.
	xauthPatience = 3 * time.Second
)

// display is an X11 display for the programs of one session, RFC 4254 §6.3. Connections to it become channels to the guest, whose
// client shows them on its own.
type display struct {
	number    int
	screen    uint32
	authority string // file with the cookie
	listening *listening
}

// x11Request is the payload of an x11-req, RFC 4254 §6.3.1.
type x11Request struct {
	Single   bool // no more than one connection
	Protocol string
	Cookie   string // hexadecimal. The guest's client has made it up for us
	Screen   uint32
}

// parseX11Request reads the payload of an x11-req. What goes to xauth is held to what cookies are made of.
func parseX11Request(payload []byte) (r x11Request, err error) {
	if err := ssh.Unmarshal(payload, &r); err != nil {
		return x11Request{}, err
	}
	if len(r.Protocol) < 1 || len(r.Protocol) > 64 || strings.ContainsFunc(r.Protocol, notInProtocol) || r.Protocol[0] == '-' {
		return x11Request{}, errors.New("not the name of an X11 authentication protocol")
	}
	if _, err := hex.DecodeString(r.Cookie); err != nil || r.Cookie == "" || len(r.Cookie) > 512 {
		return x11Request{}, errors.New("not an X11 cookie")
	}
	return r, nil
}

func notInProtocol(r rune) bool {
	letter := 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z'
	return !letter && !('0' <= r && r <= '9') && r != '-'
}

// forwardX11 makes a display for the session that leads to the guest's.
func (s *session) forwardX11(payload []byte) error {
	r, err := parseX11Request(payload)
	switch {
	case err != nil:
		return err
	case s.started || s.display != nil:
		return errors.New("the session has a display or a program already")
	case runtime.GOOS == "windows":
		return errors.New("not supported on Windows")
	}
	d, err := s.openDisplay(r)
	if err != nil {
		s.guest.log.Warn("no X11 forwarding for the guest", "error", err)
		return err
	}
	s.display = d
	s.serveOwn(d.listening)
	return nil
}

func (s *session) openDisplay(r x11Request) (*display, error) {
	dir, err := s.private()
	if err != nil {
		return nil, err
	}
	number, sockets, err := listenForX11(s.guest.ctx)
	if err != nil {
		return nil, err
	}
	// Not the user's .Xauthority, as sshd has it: the home of a CI task may be shared, or read-only.
	d := &display{number: number, screen: r.Screen, authority: filepath.Join(dir, "Xauthority")}
	if err := s.addCookie(d, r); err != nil {
		closeAll(sockets)
		return nil, err
	}
	if r.Single {
		sockets = onlyOne(sockets)
	}
	d.listening = s.guest.newListening(listenKey{}, sockets)
	d.listening.opening = openX11
	return d, nil
}

// listenForX11 finds a display that nobody uses, on either family.
func listenForX11(ctx context.Context) (number int, sockets []net.Listener, err error) {
	for number = firstDisplay; number < firstDisplay+displays; number++ {
		sockets, err = listenEach(ctx, loopbacks, uint16(firstX11Port+number))
		if len(sockets) > 0 && !errors.Is(err, syscall.EADDRINUSE) {
			return number, sockets, nil
		}
		closeAll(sockets)
		if ctx.Err() != nil {
			break
		}
	}
	return 0, nil, fmt.Errorf("no X11 display from :%d to :%d is free: %w", firstDisplay, firstDisplay+displays-1, err)
}

// openX11 is the opening of RFC 4254 §6.3.2.
func openX11(origin net.Addr) (channelType string, payload []byte) {
	from := addrPortOf(origin)
	return "x11", ssh.Marshal(struct {
		Address string
		Port    uint32
	}{from.Addr().String(), uint32(from.Port())})
}

// addCookie has xauth write the cookie to the display's own file. It goes there by a pipe: everybody can read arguments.
func (s *session) addCookie(d *display, r x11Request) error {
	env := environ(s.guest.server.host.env)
	program, err := findProgram("xauth", env)
	if err != nil {
		return fmt.Errorf("%w: install xauth on the host (package xauth; xorg-x11-xauth on Fedora)", err)
	}
	ctx, cancel := context.WithTimeout(s.guest.ctx, xauthPatience)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, "-q", "-f", d.authority, "-")
	cmd.Env = []string{"PATH=" + filepath.Dir(program), "HOME=" + filepath.Dir(d.authority)}
	cmd.WaitDelay = time.Second
	// unix:N is what X clients look for when they connect to localhost:N.
	cmd.Stdin = strings.NewReader(fmt.Sprintf("add unix:%d.%d %s %s\n", d.number, d.screen, r.Protocol, r.Cookie))
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	inheritNothing()
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("xauth: %w: %.200s", err, bytes.TrimSpace(said.Bytes()))
	}
	return nil
}

// findProgram looks a program up where the task would find it.
func findProgram(name string, env environ) (path string, err error) {
	env.setDefault("PATH", defaultPath)
	for _, dir := range filepath.SplitList(env.get("PATH")) {
		if path, err = exec.LookPath(filepath.Join(dir, name)); err == nil && filepath.IsAbs(path) {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s is not in the PATH of the task", name)
}

// closeX11 ends the display. Windows that are open live on, as under sshd, until the guest goes.
func (s *session) closeX11() {
	if s.display != nil {
		s.display.listening.close()
	}
}

// setX11Environ tells the program which display there is.
func (s *session) setX11Environ(env *environ) {
	if s.display != nil {
		env.set("DISPLAY", "localhost:"+strconv.Itoa(s.display.number)+"."+strconv.FormatUint(uint64(s.display.screen), 10))
		env.set("XAUTHORITY", s.display.authority)
	}
}
