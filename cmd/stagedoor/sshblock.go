package main

import (
	"errors"
	"fmt"
	"net"
	"strings"

	"golang.org/x/crypto/ssh"
)

// sshConfig is what ssh has to know about a gateway and the tasks behind it.
type sshConfig struct {
	host, port  string
	domain      string // that the names of tasks end in; empty: the host is an address
	tasks       []string
	hostKeys    []ssh.PublicKey // of the gateway
	authorities []ssh.PublicKey // that sign those of tasks
	identity    string
	spliced     bool
	httpsPort   string // empty: the gateway is reached by SSH itself
}

// patterns are those of host names that lead to tasks end to end.
func (c *sshConfig) patterns() []string {
	var patterns []string
	if c.domain != "" {
		patterns = append(patterns, "*."+c.domain)
	}
	return append(patterns, c.tasks...)
}

// block is for ~/.ssh/config. It begins with an empty line, so that it can be
// appended to a file whose last line has no end.
func (c *sshConfig) block() string {
	var b strings.Builder
	fmt.Fprintf(&b, "\n# Tasks of the Stagedoor gateway %s, by stagedoor ssh-config\n", c.host)
	if !c.spliced {
		c.writeEndToEnd(&b)
	}
	c.writeGateway(&b)
	return b.String()
}

func (c *sshConfig) writeEndToEnd(b *strings.Builder) {
	example := "task-1234"
	if c.domain != "" {
		example += "." + c.domain
	}
	fmt.Fprintf(b, "#     ssh %s    end to end: the gateway passes on what it cannot read\n", example)
	ask := "ask"
	if len(c.authorities) > 0 {
		ask = "yes"
		fmt.Fprint(b, "# End to end, ssh trusts the host keys that the CI has signed, and no others. It\n"+
			"# knows them by the lines of stagedoor ssh-config --known-hosts in ~/.ssh/known_hosts\n")
	} else {
		fmt.Fprintf(b, "# End to end, ssh asks about the host key of a task that is new to it: compare the\n"+
			"# fingerprint with the one in the log of the task's job. When a task comes back under\n"+
			"# the name of an earlier one, ssh warns; forget the old key by\n"+
			"#     ssh-keygen -R %s\n", example)
	}
	// ssh runs what it makes of ProxyJump in a shell, where the user stands bare: a "*" in a name that
	// somebody else chose, such as the URL of a git submodule, would be replaced by names of files.
	fmt.Fprintf(b, "Host %s\n    ProxyJump \"%%n\"@%s\n    StrictHostKeyChecking %s\n", strings.Join(c.patterns(), " "), c.address(), ask)
	c.writeIdentity(b)
}

// writeGateway writes how the gateway itself is reached, which goes for the jump
// as well.
func (c *sshConfig) writeGateway(b *strings.Builder) {
	fmt.Fprintf(b, "#     ssh task-1234@%s    spliced: the gateway signs you in, and can read along\n", c.host)
	if c.port == "22" && c.identity == "" && c.httpsPort == "" {
		return
	}
	fmt.Fprintf(b, "Host %s\n    Port %s\n", c.host, c.port)
	c.writeIdentity(b)
	if c.httpsPort == "" {
		return
	}
	target := c.host
	if c.httpsPort != "443" {
		target += " " + c.httpsPort
	}
	fmt.Fprintf(b, "    ProxyCommand stagedoor proxy %s\n", target)
}

func (c *sshConfig) writeIdentity(b *strings.Builder) {
	if c.identity != "" {
		fmt.Fprintf(b, "    IdentityFile \"%s\"\n    IdentitiesOnly yes\n", c.identity)
	}
}

// address is host[:port] as ProxyJump takes it.
func (c *sshConfig) address() string {
	if c.port != "22" {
		return net.JoinHostPort(c.host, c.port)
	}
	if strings.Contains(c.host, ":") {
		return "[" + c.host + "]"
	}
	return c.host
}

// knownHosts is for ~/.ssh/known_hosts (sshd(8), SSH_KNOWN_HOSTS FILE FORMAT).
func (c *sshConfig) knownHosts() (string, error) {
	if len(c.hostKeys)+len(c.authorities) == 0 {
		return "", errors.New("there is nothing to know: name the gateway's public host keys with --host-key, and the key that signs those of tasks with --host-ca")
	}
	var b strings.Builder
	name := c.host
	if c.port != "22" {
		name = "[" + c.host + "]:" + c.port
	}
	for _, key := range c.hostKeys {
		fmt.Fprintf(&b, "%s %s", name, ssh.MarshalAuthorizedKey(key))
	}
	for _, key := range c.authorities {
		if patterns := c.patterns(); len(patterns) > 0 {
			fmt.Fprintf(&b, "@cert-authority %s %s", strings.Join(patterns, ","), ssh.MarshalAuthorizedKey(key))
		}
	}
	return b.String(), nil
}
