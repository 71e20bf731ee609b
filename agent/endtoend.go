package agent

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/auth"
	"github.com/stagedoor/stagedoor/tunnel"
)

// hostKeys returns what is shown to guests who sign in end to end: the host key, and before it the certificate for it, if there
// is one. ssh(1) takes the key where it trusts no CA.
func (s *Server) hostKeys() ([]ssh.Signer, error) {
	if s.HostCertificate == nil {
		return []ssh.Signer{s.HostKey}, nil
	}
	certified, err := ssh.NewCertSigner(s.HostCertificate, s.HostKey)
	if err != nil {
		return nil, fmt.Errorf("agent: host certificate: %w", err)
	}
	return []ssh.Signer{certified, s.HostKey}, nil
}

// checkHostKey refuses keys that no guest could use.
func (s *Server) checkHostKey(now time.Time) error {
	if s.HostKey == nil {
		return errors.New("agent: the server has no host key")
	}
	key := s.HostKey.PublicKey()
	switch key.Type() {
	case ssh.KeyAlgoED25519, ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521:
	default:
		return fmt.Errorf("agent: a host key of type %.64q is not supported: make one with ssh-keygen -t ed25519 -N '' -f FILE", key.Type())
	}
	if s.HostCertificate == nil {
		return nil
	}
	if err := auth.CheckHostCertificate(s.HostCertificate, key, s.Task, now); err != nil {
		return fmt.Errorf("agent: %w", err)
	}
	return nil
}

// narrowed holds what an end-to-end guest was granted against what the operator of the gateway permits at most. Nobody else
// enforces that: the gateway sees only bytes.
func (g *guest) narrowed(p *ssh.Permissions) (*ssh.Permissions, error) {
	policy, err := auth.ParsePolicy(g.welcome.Policy)
	if err != nil {
		return nil, fmt.Errorf("%w: the gateway's policy: %w", auth.ErrDenied, err)
	}
	if policy == nil {
		return p, nil
	}
	return auth.Intersect(p, policy), nil
}

// commands are what guests type to reach a task through the gateway at host and port, both of which tunnel.ParseAddress let pass.
type commands struct {
	task       auth.TaskID
	host, port string
	key        ssh.PublicKey
	names      []string // of the host certificate; nil without one
}

// spliced is for guests whom the gateway signs in.
func (c commands) spliced() string {
	if c.port == "22" {
		return fmt.Sprintf("ssh %s@%s", c.task, c.host)
	}
	return fmt.Sprintf("ssh -p %s %s@%s", c.port, c.task, c.host)
}

// pinned is for guests who sign in here and trust the gateway with nothing. It brings the host key along: ssh(1) asks
// KnownHostsCommand for keys under the name that it looks for (%H), and takes no other beside those of the user's own files. The
// options are for the host alone; ssh -J does not hand them on to the gateway's connection.
func (c commands) pinned() string {
	key := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(c.key)))
	return fmt.Sprintf("ssh -J %s -o StrictHostKeyChecking=yes -o 'KnownHostsCommand=/bin/echo %%H %s' %s", c.jump(), key, c.task)
}

// certified is for guests who trust the CA of the host certificate: it says that the key belongs to the name. Empty where the
// certificate has no name by which the gateway knows the task.
func (c commands) certified() string {
	for _, name := range []string{string(c.task) + "." + strings.ToLower(c.host), string(c.task)} {
		if slices.Contains(c.names, name) {
			return fmt.Sprintf("ssh -J %s %s", c.jump(), name)
		}
	}
	return ""
}

// jump is the gateway as -J takes it. The user name makes the gateway judge the guest for this task.
func (c commands) jump() string {
	address := net.JoinHostPort(c.host, c.port)
	if c.port == "22" {
		address = strings.TrimSuffix(net.JoinHostPort(c.host, ""), ":")
	}
	return string(c.task) + "@" + address
}

// commands returns those for an address that a gateway told, which may be anything.
func (a *Agent) commands(address string) (commands, error) {
	host, port, err := tunnel.ParseAddress(address)
	c := commands{task: a.server.Task, host: host, port: port, key: a.server.HostKey.PublicKey()}
	if a.HostCertificate != nil {
		c.names = a.HostCertificate.ValidPrincipals
	}
	return c, err
}

// namesKeys tells whether the grant lets anybody sign in here.
func (s *Server) namesKeys() bool {
	if s.Grant == nil {
		return false
	}
	keys, err := s.Grant.PublicKeys()
	return err == nil && len(keys) > 0 || s.namesAccounts()
}
