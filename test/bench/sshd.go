//go:build unix

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

// direct is OpenSSH's sshd on the host, with nothing in between.
type direct struct {
	called string
	cipher string
}

func (d *direct) name() string { return d.called }

func (d *direct) about() string {
	return "OpenSSH sshd, called directly" + with(d.cipher)
}

func with(cipher string) string {
	if cipher == "" {
		return ""
	}
	return ", with " + cipher
}

func (d *direct) start(ctx context.Context, l *lab) (*route, error) {
	p, address, err := l.startSSHD(ctx, d.called)
	if err != nil {
		return nil, err
	}
	return &route{hops: []hop{{l.user, address}}, cipher: d.cipher, host: []*process{p}}, nil
}

// reverse is what one would build of OpenSSH alone: the host's ssh -R opens a
// port on a jump host, through which the guest's ssh -J comes to the host's
// sshd.
type reverse struct{}

func (reverse) name() string { return "reverse" }
func (reverse) about() string {
	return "OpenSSH ssh -R from the host to a jump sshd, ssh -J from the guest"
}

func (reverse) start(ctx context.Context, l *lab) (*route, error) {
	host, hostAddress, err := l.startSSHD(ctx, "reverse-host")
	if err != nil {
		return nil, err
	}
	jump, jumpAddress, err := l.startSSHD(ctx, "reverse-jump")
	if err != nil {
		return nil, err
	}
	back, port, err := l.startReverse(ctx, jumpAddress, hostAddress)
	if err != nil {
		return nil, err
	}
	return &route{
		hops:    []hop{{l.user, jumpAddress}, {l.user, net.JoinHostPort("127.0.0.1", port)}},
		gateway: []*process{jump},
		host:    []*process{host, back},
	}, nil
}

var allocated = regexp.MustCompile(`Allocated port (\d+) for remote forward`)

// startReverse runs the host's ssh -R and returns the port that the jump host
// gave it.
func (l *lab) startReverse(ctx context.Context, jump, host string) (*process, string, error) {
	config, err := l.write("reverse-back.conf", "Host *\n"+clientConfig(l))
	if err != nil {
		return nil, "", err
	}
	name, port, err := net.SplitHostPort(jump)
	if err != nil {
		return nil, "", err
	}
	p, err := l.serve("reverse-back", exec.Command(l.ssh, "-F", config, "-N", "-T", "-o", "ExitOnForwardFailure=yes",
		"-R", "127.0.0.1:0:"+host, "-p", port, "-l", l.user, name))
	if err != nil {
		return nil, "", err
	}
	var opened string
	err = p.waitFor(ctx, func() bool {
		if m := allocated.FindStringSubmatch(logTail(p.log)); m != nil {
			opened = m[1]
		}
		return opened != ""
	})
	return p, opened, err
}

// startSSHD runs an sshd that lets the guest's key in as the user who runs the
// bench, and nobody else.
func (l *lab) startSSHD(ctx context.Context, name string) (*process, string, error) {
	program, err := findSSHD()
	if err != nil {
		return nil, "", err
	}
	if _, err := l.newKey(name + "-hostkey"); err != nil {
		return nil, "", err
	}
	address, err := freeAddress()
	if err != nil {
		return nil, "", err
	}
	config, err := l.write(name+".conf", l.sshdConfig(name, address))
	if err != nil {
		return nil, "", err
	}
	p, err := l.serve(name, exec.Command(program, "-D", "-e", "-f", config))
	if err != nil {
		return nil, "", err
	}
	return p, address, p.waitFor(ctx, listens(address))
}

// sshdConfig leaves sshd's defaults alone, but for what lets it run beside
// another one, for any user. PAM is off, which makes it faster, and does not
// depend on the machine's configuration.
func (l *lab) sshdConfig(name, address string) string {
	return strings.Join([]string{
		"ListenAddress " + address,
		"HostKey " + l.path(name+"-hostkey"),
		"AuthorizedKeysFile " + l.path("guest.pub"),
		"PidFile none",
		"StrictModes no",
		"UsePAM no",
		"PermitRootLogin prohibit-password",
		"PasswordAuthentication no",
		"KbdInteractiveAuthentication no",
		"LogLevel ERROR",
		"PermitUserRC no",
		"SetEnv HOME=" + l.home(),
		"PrintMotd no",
		"PrintLastLog no",
		"",
	}, "\n")
}

// findSSHD returns the absolute path, by which sshd wants to be called.
func findSSHD() (string, error) {
	path, err := exec.LookPath("sshd")
	for _, dir := range []string{"/usr/sbin", "/usr/local/sbin", "/sbin"} {
		if err == nil {
			break
		}
		path, err = exec.LookPath(filepath.Join(dir, "sshd"))
	}
	if err != nil {
		return "", errors.New("install the OpenSSH server: there is no sshd to compare with")
	}
	return path, makePrivilegeSeparation()
}

// makePrivilegeSeparation makes the directory without which Debian's sshd does
// not start as root. It is there where sshd's own service ever ran.
func makePrivilegeSeparation() error {
	const dir = "/run/sshd"
	if _, err := os.Stat("/run"); os.Geteuid() != 0 || err != nil {
		return nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("directory for sshd: %w", err)
	}
	return nil
}
