//go:build unix

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
)

// A contender is one way from a guest's ssh to a command on a host.
type contender interface {
	// name is a word for flags and tables.
	name() string
	// about says in a line what it is.
	about() string
	// start brings up the servers, which l ends, and returns the way in.
	start(ctx context.Context, l *lab) (*route, error)
}

// baseline is the contender that all others are divided by.
const baseline = "sshd"

func allContenders() []contender {
	return []contender{
		&direct{called: baseline},
		&direct{called: "sshd-gcm", cipher: gcm},
		&stagedoor{called: "stagedoor"},
		&stagedoor{called: "stagedoor-gcm", cipher: gcm},
		reverse{},
	}
}

// usualContenders are those that a run without -contenders measures. The one
// left out tells what Stagedoor loses where ssh agrees upon a slower cipher.
const usualContenders = baseline + ",sshd-gcm,stagedoor,reverse"

// gcm is the cipher that both OpenSSH and Go are fastest at.
const gcm = "aes128-gcm@openssh.com"

// A route is how a guest reaches the host.
type route struct {
	hops   []hop  // the last is the host, one before it a jump host
	cipher string // the guest insists on it; empty: ssh's own choice

	// Processes whose CPU time is told, with what they fork.
	gateway, host []*process
}

type hop struct{ user, address string }

// An entrant is a contender that is up and was reached once.
type entrant struct {
	contender
	*route
	config  string   // file for ssh -F, in which the host is called "task"
	log     *os.File // of every ssh
	agreed  algorithms
	signer  ssh.Signer
	sshPath string

	noTerminal bool // see prepareEcho
}

// algorithms are what ssh agreed upon with the host.
type algorithms struct {
	KeyExchange string `json:"keyExchange"`
	Cipher      string `json:"cipher"`
	MAC         string `json:"mac"`
}

// enter starts the contenders and warms them up.
func (l *lab) enter(ctx context.Context, contenders []contender) ([]*entrant, error) {
	var entrants []*entrant
	for _, c := range contenders {
		l.say("start %s", c.name())
		r, err := c.start(ctx, l)
		if err != nil {
			return nil, fmt.Errorf("start %s: %w", c.name(), err)
		}
		e := &entrant{contender: c, route: r, signer: l.guest, sshPath: l.ssh}
		if err := e.prepare(ctx, l); err != nil {
			return nil, fmt.Errorf("warm up %s: %w", c.name(), err)
		}
		entrants = append(entrants, e)
	}
	return entrants, nil
}

// prepare writes the guest's configuration, learns the host key and the
// cipher, and runs everything that is measured once, small, with every byte
// compared.
func (e *entrant) prepare(ctx context.Context, l *lab) (err error) {
	if e.config, err = l.write(e.name()+".conf", e.sshConfig(l)); err != nil {
		return err
	}
	if e.log, err = l.openLog(e.name() + "-guest"); err != nil {
		return err
	}
	if e.agreed, err = e.negotiate(ctx, l.path(e.name()+"-negotiation.log")); err != nil {
		return err
	}
	for _, d := range []direction{download, upload} {
		if _, err := e.transfer(ctx, l, d, 8<<20, true); err != nil {
			return err
		}
	}
	return e.prepareEcho(ctx, l)
}

// prepareEcho finds out whether the host gives terminals. An sshd of a user who
// is not root has to chown them to group tty, which fails where devpts is
// mounted without gid=5, as in containers; it then drops the connection.
func (e *entrant) prepareEcho(ctx context.Context, l *lab) error {
	_, err := e.echoAll(ctx, 20)
	if errors.Is(err, errTerminal) && ctx.Err() == nil && os.Geteuid() != 0 {
		l.say("%s gives no terminal to a user who is not root: not measured", e.name())
		e.noTerminal = true
		return nil
	}
	return err
}

// sshConfig is the configuration of the guest's ssh. Nothing of the user's own
// has a say.
func (e *entrant) sshConfig(l *lab) string {
	var b strings.Builder
	for i, h := range e.hops {
		host, port, _ := net.SplitHostPort(h.address)
		last := i == len(e.hops)-1
		fmt.Fprintf(&b, "Host %s\n  HostName %s\n  Port %s\n  User %s\n", hopName(last), host, port, h.user)
		if last && i > 0 {
			fmt.Fprintf(&b, "  ProxyJump %s\n", hopName(false))
		}
	}
	b.WriteString("Host *\n")
	if e.cipher != "" {
		fmt.Fprintf(&b, "  Ciphers %s\n", e.cipher)
	}
	b.WriteString(clientConfig(l))
	return b.String()
}

func hopName(last bool) string {
	if last {
		return "task"
	}
	return "jump"
}

// clientConfig is what every ssh that the bench runs is told.
func clientConfig(l *lab) string {
	return strings.Join([]string{
		"  KexAlgorithms " + l.kex,
		"  HostKeyAlgorithms ssh-ed25519",
		"  IdentityFile " + l.path("guest"),
		"  IdentitiesOnly yes",
		"  IdentityAgent none",
		"  PreferredAuthentications publickey",
		"  GSSAPIAuthentication no",
		"  BatchMode yes",
		"  StrictHostKeyChecking accept-new",
		"  UserKnownHostsFile " + l.path("known_hosts"),
		"  GlobalKnownHostsFile none",
		"  UpdateHostKeys no",
		"  Compression no",
		"",
	}, "\n")
}

// sshCommand returns the guest's ssh with words for the host's shell. Its
// messages go to a file, not to a pipe: that one would be held open by the
// second ssh of ssh -J when the first has ended.
func (e *entrant) sshCommand(ctx context.Context, options []string, words ...string) *exec.Cmd {
	args := append([]string{"-F", e.config, "-T"}, options...)
	args = append(append(args, "task"), words...)
	cmd := command(ctx, e.sshPath, args...)
	cmd.Stderr = e.log
	return cmd
}

// runTrue runs true on the host.
func (e *entrant) runTrue(ctx context.Context, options ...string) error {
	if err := e.sshCommand(ctx, options, "true").Run(); err != nil {
		return fmt.Errorf("ssh: %w: %s", errors.Join(ctx.Err(), err), logTail(e.log.Name()))
	}
	return nil
}

var (
	kexLine    = regexp.MustCompile(`kex: algorithm: (\S+)`)
	cipherLine = regexp.MustCompile(`kex: server->client cipher: (\S+) MAC: (\S+)`)
)

// negotiate asks ssh -v what it agreed upon with the host, and so learns the
// host keys too. What ssh says is in the file log.
func (e *entrant) negotiate(ctx context.Context, log string) (a algorithms, err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := e.runTrue(ctx, "-v", "-E", log); err != nil {
		return a, fmt.Errorf("%w %s", err, logTail(log))
	}
	text, err := os.ReadFile(log)
	if err != nil {
		return a, err
	}
	return parseAlgorithms(string(text))
}

// parseAlgorithms reads the log of ssh -v. Through a jump host the lines of the
// outer connection come first, those that count last.
func parseAlgorithms(log string) (a algorithms, err error) {
	kex := kexLine.FindAllStringSubmatch(log, -1)
	cipher := cipherLine.FindAllStringSubmatch(log, -1)
	if len(kex) == 0 || len(cipher) == 0 {
		return a, errors.New("ssh -v does not tell what was negotiated")
	}
	last := cipher[len(cipher)-1]
	return algorithms{kex[len(kex)-1][1], last[1], last[2]}, nil
}
