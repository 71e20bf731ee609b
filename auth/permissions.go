package auth

import (
	"fmt"
	"maps"
	"strings"

	"golang.org/x/crypto/ssh"
)

// The vocabulary of permissions: what OpenSSH's certificate extensions name,
// and what they leave out, under our own suffix. A permission is an extension
// that is present, whatever its value.
const (
	PermitPTY             = "permit-pty"
	PermitPortForwarding  = "permit-port-forwarding"
	PermitAgentForwarding = "permit-agent-forwarding"
	PermitX11Forwarding   = "permit-X11-forwarding"
	PermitExec            = "permit-exec@stagedoor"    // run commands, with or without a PTY
	PermitSFTP            = "permit-sftp@stagedoor"    // the sftp subsystem
	PermitControl         = "permit-control@stagedoor" // act upon the task itself, not only inside of it

	// PermitGatewayPorts lets a guest choose the address that a remote
	// forwarding listens on, as under sshd's GatewayPorts clientspecified.
	// Without it the agent binds the loopback address whatever was asked for,
	// so the table refuses nothing for the lack of it.
	PermitGatewayPorts = "permit-gateway-ports@stagedoor"
)

// Critical options narrow what the extensions permit. Permissions with a
// critical option that is not named here permit nothing.
const (
	ForceCommand  = "force-command"          // run instead of whatever the guest asks for; see ForcedCommand
	SourceAddress = "source-address"         // comma-separated addresses and CIDR blocks the guest must come from
	PermitOpen    = "permitopen@stagedoor"   // host:port that direct-tcpip may reach, comma-separated; see forwarding.go
	PermitListen  = "permitlisten@stagedoor" // host:port that tcpip-forward may listen on, comma-separated
)

// ExtIdentity is the extension in which the name of an identity travels with
// its permissions. It permits nothing.
const ExtIdentity = "identity@stagedoor"

// noTouchRequired waives the touch of a security key. x/crypto/ssh acts upon it
// during sign-in; it permits nothing afterwards.
const noTouchRequired = "no-touch-required"

// permissionNames are the extensions that permit something.
var permissionNames = []string{
	PermitPTY, PermitPortForwarding, PermitAgentForwarding, PermitX11Forwarding, PermitExec, PermitSFTP, PermitControl, PermitGatewayPorts,
}

// criticalOptionNames are the critical options that are understood.
var criticalOptionNames = []string{ForceCommand, SourceAddress, PermitOpen, PermitListen}

// A Side is the end of a joined connection that starts something.
type Side int

const (
	Guest Side = iota
	Host
	eitherSide // for rules alone
)

// String returns "guest" or "host".
func (s Side) String() string {
	switch s {
	case Guest:
		return "guest"
	case Host:
		return "host"
	}
	return fmt.Sprintf("Side(%d)", int(s))
}

// A rule is one line of the table: who may start a thing, and what the guest's
// permissions must say for it. A host acts for the guest it serves, so what it
// may start depends on the guest's permissions too.
type rule struct {
	from  Side
	needs []string // any one of them; none: being signed in is enough
	check func(p *ssh.Permissions, payload []byte) error
}

// channelRules: every channel type that may be opened. Any other is refused.
// agent-connect (and agent-req below) is what newer OpenSSH calls
// auth-agent@openssh.com.
var channelRules = map[string]rule{
	"session":                           {from: Guest},
	"direct-tcpip":                      {from: Guest, needs: []string{PermitPortForwarding}, check: checkDirectTCPIP},
	"direct-streamlocal@openssh.com":    {from: Guest, needs: []string{PermitPortForwarding}, check: checkDirectStreamlocal},
	"forwarded-tcpip":                   {from: Host, needs: []string{PermitPortForwarding}},
	"forwarded-streamlocal@openssh.com": {from: Host, needs: []string{PermitPortForwarding}},
	"auth-agent@openssh.com":            {from: Host, needs: []string{PermitAgentForwarding}},
	"agent-connect":                     {from: Host, needs: []string{PermitAgentForwarding}},
	"x11":                               {from: Host, needs: []string{PermitX11Forwarding}},
}

// sessionRules: the requests on a session channel that need a permission. They
// are refused from the host and on other channels. Any request that is not
// named here (env, signal, exit-status, …) passes: the other end answers it.
var sessionRules = map[string]rule{
	"pty-req":                    {from: Guest, needs: []string{PermitPTY}},
	"shell":                      {from: Guest, needs: []string{PermitPTY, PermitExec}}, // without a PTY it is an exec
	"exec":                       {from: Guest, needs: []string{PermitExec}},
	"subsystem":                  {from: Guest, check: checkSubsystem},
	"x11-req":                    {from: Guest, needs: []string{PermitX11Forwarding}},
	"auth-agent-req@openssh.com": {from: Guest, needs: []string{PermitAgentForwarding}},
	"agent-req":                  {from: Guest, needs: []string{PermitAgentForwarding}},
}

// globalRules: every global request that may pass. Any other is refused, as
// both ends would anyway; above all a host's hostkeys-00@openssh.com, which
// would make the guest's client remember the host's keys as the gateway's.
var globalRules = map[string]rule{
	"tcpip-forward":                          {from: Guest, needs: []string{PermitPortForwarding}, check: checkTCPIPForward},
	"cancel-tcpip-forward":                   {from: Guest, needs: []string{PermitPortForwarding}},
	"streamlocal-forward@openssh.com":        {from: Guest, needs: []string{PermitPortForwarding}, check: checkStreamlocalForward},
	"cancel-streamlocal-forward@openssh.com": {from: Guest, needs: []string{PermitPortForwarding}},
	"no-more-sessions@openssh.com":           {from: Guest},
	"hostkeys-prove-00@openssh.com":          {from: Guest},
	"keepalive@openssh.com":                  {from: eitherSide},
}

// AllowChannel says whether the table lets a side open a channel, for a guest
// with permissions p. It returns nil or an *ssh.OpenChannelError with the
// reason and words for the guest. extra is the type-specific data of the open
// request.
func AllowChannel(p *ssh.Permissions, from Side, channelType string, extra []byte) error {
	r, known := channelRules[channelType]
	if !known {
		return &ssh.OpenChannelError{Reason: ssh.UnknownChannelType, Message: fmt.Sprintf("channel type %.64q is not supported", channelType)}
	}
	if err := r.apply(p, from, channelType, extra); err != nil {
		return &ssh.OpenChannelError{Reason: ssh.Prohibited, Message: err.Error()}
	}
	return nil
}

// AllowRequest says whether the table lets a side send a request on a channel
// of channelType, for a guest with permissions p. It returns nil or an error
// that wraps [ErrDenied], with words for the guest.
func AllowRequest(p *ssh.Permissions, from Side, channelType, requestType string, payload []byte) error {
	r, known := sessionRules[requestType]
	switch {
	case !known:
		return rule{from: eitherSide}.apply(p, from, requestType, payload)
	case channelType != "session":
		return denied("%s is not a request of %.64q channels", requestType, channelType)
	}
	return r.apply(p, from, requestType, payload)
}

// AllowGlobal says whether the table lets a side send a global request, for a
// guest with permissions p. It returns nil or an error that wraps [ErrDenied],
// with words for the guest.
func AllowGlobal(p *ssh.Permissions, from Side, requestType string, payload []byte) error {
	r, known := globalRules[requestType]
	if !known {
		return denied("global request %.64q is not supported", requestType)
	}
	return r.apply(p, from, requestType, payload)
}

func (r rule) apply(p *ssh.Permissions, from Side, what string, payload []byte) error {
	if err := usable(p); err != nil {
		return err
	}
	if from != Guest && from != Host || r.from != eitherSide && r.from != from {
		return denied("the %v may not start %s", from, what)
	}
	if len(r.needs) > 0 && !hasAny(p, r.needs) {
		return denied("%s needs the permission %s, which you were not granted", what, shortNames(r.needs))
	}
	if r.check != nil {
		return r.check(p, payload)
	}
	return nil
}

// usable refuses permissions that were never given, and those with a
// restriction that would otherwise be skipped.
func usable(p *ssh.Permissions) error {
	if p == nil {
		return denied("not signed in")
	}
	for name, value := range p.CriticalOptions {
		if !isCriticalOption(name) {
			return denied("critical option %.64q is not supported", name)
		}
		if name == ForceCommand && value == "" {
			return denied("%s is empty", ForceCommand)
		}
	}
	return nil
}

// ShortPermission is the name of a permission as people write it, in tokens and in
// configurations: exec for permit-exec@stagedoor.
func ShortPermission(name string) string {
	return strings.TrimSuffix(strings.TrimPrefix(name, "permit-"), "@stagedoor")
}

func shortNames(names []string) string {
	short := make([]string, len(names))
	for i, name := range names {
		short[i] = ShortPermission(name)
	}
	return strings.Join(short, " or ")
}

func isCriticalOption(name string) bool {
	for _, known := range criticalOptionNames {
		if name == known {
			return true
		}
	}
	return false
}

func hasAny(p *ssh.Permissions, names []string) bool {
	for _, name := range names {
		if _, ok := p.Extensions[name]; ok {
			return true
		}
	}
	return false
}

// checkSubsystem: sftp has a permission of its own, any other subsystem is a
// command that the host was told to run. Under a forced command that command is
// what runs, so it needs leave to run commands as well.
func checkSubsystem(p *ssh.Permissions, payload []byte) error {
	var request struct{ Name string }
	if err := ssh.Unmarshal(payload, &request); err != nil {
		return denied("subsystem request cannot be read: %v", err)
	}
	var needs []string
	if request.Name == "sftp" {
		needs = append(needs, PermitSFTP)
	}
	if _, forced := ForcedCommand(p); forced || request.Name != "sftp" {
		needs = append(needs, PermitExec)
	}
	for _, name := range needs {
		if !hasAny(p, []string{name}) {
			return denied("subsystem %.64q needs the permission %s, which you were not granted", request.Name, ShortPermission(name))
		}
	}
	return nil
}

// FullPermissions returns a new value that permits everything.
func FullPermissions() *ssh.Permissions {
	p := noPermissions()
	for _, name := range permissionNames {
		p.Extensions[name] = ""
	}
	return p
}

// DefaultPermissions returns a new value with what a key without options and a
// grant without a list get: as under sshd everything but PermitGatewayPorts.
func DefaultPermissions() *ssh.Permissions {
	p := FullPermissions()
	delete(p.Extensions, PermitGatewayPorts)
	return p
}

// noPermissions is a value to add to; as it is, a guest may open sessions in
// which nothing can be started.
func noPermissions() *ssh.Permissions {
	return &ssh.Permissions{CriticalOptions: map[string]string{}, Extensions: map[string]string{}}
}

// clone copies what is understood of p: extensions and critical options, no
// data of other packages.
func clone(p *ssh.Permissions) *ssh.Permissions {
	c := noPermissions()
	maps.Copy(c.Extensions, p.Extensions)
	maps.Copy(c.CriticalOptions, p.CriticalOptions)
	return c
}

// IdentityName returns the name that travels with permissions, or "" if there
// is none.
func IdentityName(p *ssh.Permissions) string {
	if p == nil {
		return ""
	}
	return p.Extensions[ExtIdentity]
}

// ForcedCommand returns the command that must run in place of any shell,
// command or subsystem a guest asks for, and whether there is one.
func ForcedCommand(p *ssh.Permissions) (command string, forced bool) {
	if p == nil {
		return "", false
	}
	command, forced = p.CriticalOptions[ForceCommand]
	return command, forced
}
