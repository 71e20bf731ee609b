package auth

import (
	"errors"
	"maps"
	"slices"
	"testing"

	"golang.org/x/crypto/ssh"
)

// A tableCase says, independently of the table, what one thing needs. The test
// below makes every combination of side and permission from it.
type tableCase struct {
	name    string
	from    []Side
	anyOf   []string // nil: being signed in is enough
	payload []byte
	ask     func(p *ssh.Permissions, from Side, payload []byte) error
}

func channelCase(name string, from Side, payload []byte, anyOf ...string) tableCase {
	return tableCase{name: "channel " + name, from: []Side{from}, anyOf: anyOf, payload: payload,
		ask: func(p *ssh.Permissions, from Side, payload []byte) error { return AllowChannel(p, from, name, payload) }}
}

func requestCase(name string, from []Side, payload []byte, anyOf ...string) tableCase {
	return tableCase{name: "request " + name, from: from, anyOf: anyOf, payload: payload,
		ask: func(p *ssh.Permissions, from Side, payload []byte) error {
			return AllowRequest(p, from, "session", name, payload)
		}}
}

func globalCase(name string, from []Side, payload []byte, anyOf ...string) tableCase {
	return tableCase{name: "global " + name, from: from, anyOf: anyOf, payload: payload,
		ask: func(p *ssh.Permissions, from Side, payload []byte) error {
			return AllowGlobal(p, from, name, payload)
		}}
}

type directTCPIP struct {
	Host       string
	Port       uint32
	OriginHost string
	OriginPort uint32
}

type tcpipForward struct {
	Host string
	Port uint32
}

func directPayload(host string, port uint32) []byte {
	return ssh.Marshal(directTCPIP{Host: host, Port: port, OriginHost: "127.0.0.1", OriginPort: 40000})
}

func forwardPayload(host string, port uint32) []byte {
	return ssh.Marshal(tcpipForward{Host: host, Port: port})
}

func text(s string) []byte { return ssh.Marshal(struct{ S string }{s}) }

var (
	guestOnly = []Side{Guest}
	anySide   = []Side{Guest, Host}
	nobody    = []Side{}
)

func tableCases() []tableCase {
	return []tableCase{
		channelCase("session", Guest, nil),
		channelCase("direct-tcpip", Guest, directPayload("localhost", 80), "permit-port-forwarding"),
		channelCase("direct-streamlocal@openssh.com", Guest, text("/run/x"), "permit-port-forwarding"),
		channelCase("forwarded-tcpip", Host, directPayload("localhost", 80), "permit-port-forwarding"),
		channelCase("forwarded-streamlocal@openssh.com", Host, text("/run/x"), "permit-port-forwarding"),
		channelCase("auth-agent@openssh.com", Host, nil, "permit-agent-forwarding"),
		channelCase("agent-connect", Host, nil, "permit-agent-forwarding"),
		channelCase("x11", Host, directPayload("localhost", 80), "permit-X11-forwarding"),

		requestCase("pty-req", guestOnly, nil, "permit-pty"),
		requestCase("shell", guestOnly, nil, "permit-pty", "permit-exec@stagedoor"),
		requestCase("exec", guestOnly, text("make"), "permit-exec@stagedoor"),
		requestCase("subsystem", guestOnly, text("sftp"), "permit-sftp@stagedoor"),
		requestCase("subsystem", guestOnly, text("netconf"), "permit-exec@stagedoor"),
		requestCase("x11-req", guestOnly, nil, "permit-X11-forwarding"),
		requestCase("auth-agent-req@openssh.com", guestOnly, nil, "permit-agent-forwarding"),
		requestCase("agent-req", guestOnly, nil, "permit-agent-forwarding"),
		requestCase("env", anySide, nil),
		requestCase("signal", anySide, nil),
		requestCase("window-change", anySide, nil),
		requestCase("exit-status", anySide, nil),
		requestCase("eow@openssh.com", anySide, nil),
		requestCase("invented-tomorrow@openssh.com", anySide, nil),

		globalCase("tcpip-forward", guestOnly, forwardPayload("localhost", 80), "permit-port-forwarding"),
		globalCase("cancel-tcpip-forward", guestOnly, forwardPayload("localhost", 80), "permit-port-forwarding"),
		globalCase("streamlocal-forward@openssh.com", guestOnly, text("/run/x"), "permit-port-forwarding"),
		globalCase("cancel-streamlocal-forward@openssh.com", guestOnly, text("/run/x"), "permit-port-forwarding"),
		globalCase("no-more-sessions@openssh.com", guestOnly, nil),
		globalCase("hostkeys-prove-00@openssh.com", guestOnly, nil),
		globalCase("keepalive@openssh.com", anySide, nil),
		globalCase("hostkeys-00@openssh.com", nobody, nil),
		globalCase("invented-tomorrow@openssh.com", nobody, nil),
	}
}

func TestTable(t *testing.T) {
	for _, c := range tableCases() {
		t.Run(c.name, func(t *testing.T) {
			for _, side := range []Side{Guest, Host, Side(2), Side(-1)} {
				fromHere := slices.Contains(c.from, side)
				c.expect(t, "nil permissions", nil, side, false)
				c.expect(t, "no permission", noPermissions(), side, fromHere && c.anyOf == nil)
				c.expect(t, "all permissions", FullPermissions(), side, fromHere)
				for _, name := range permissionNames {
					alone := noPermissions()
					alone.Extensions[name] = ""
					c.expect(t, name+" alone", alone, side, fromHere && (c.anyOf == nil || slices.Contains(c.anyOf, name)))

					without := FullPermissions()
					delete(without.Extensions, name)
					c.expect(t, "all but "+name, without, side, fromHere && !slices.Equal(c.anyOf, []string{name}))
				}
			}
		})
	}
}

func (c *tableCase) expect(t *testing.T, what string, p *ssh.Permissions, from Side, want bool) {
	t.Helper()
	err := c.ask(p, from, c.payload)
	if allowed := err == nil; allowed != want {
		t.Errorf("%s from the %v: allowed is %v, want %v (error %v)", what, from, allowed, want, err)
	}
	if err == nil {
		return
	}
	if _, isOpen := errors.AsType[*ssh.OpenChannelError](err); !isOpen && !errors.Is(err, ErrDenied) {
		t.Errorf("%s from the %v: error %v is neither an OpenChannelError nor ErrDenied", what, from, err)
	}
}

// A line that is added to the table without a line in the test would go
// untested.
func TestTableCasesCoverTheTable(t *testing.T) {
	covered := map[string]bool{}
	for _, c := range tableCases() {
		covered[c.name] = true
	}
	for prefix, rules := range map[string]map[string]rule{"channel ": channelRules, "request ": sessionRules, "global ": globalRules} {
		for name := range rules {
			if !covered[prefix+name] {
				t.Errorf("no case for %s%s", prefix, name)
			}
		}
	}
}

func TestUnknownChannelTypeIsNamedAsSuch(t *testing.T) {
	for _, from := range anySide {
		err := AllowChannel(FullPermissions(), from, "tun@openssh.com", nil)
		open, ok := errors.AsType[*ssh.OpenChannelError](err)
		if !ok || open.Reason != ssh.UnknownChannelType {
			t.Errorf("from the %v: %v, want UnknownChannelType", from, err)
		}
	}
	err := AllowChannel(noPermissions(), Guest, "direct-tcpip", directPayload("x", 1))
	open, ok := errors.AsType[*ssh.OpenChannelError](err)
	if !ok || open.Reason != ssh.Prohibited {
		t.Errorf("without the permission: %v, want Prohibited", err)
	}
}

// An agent that dispatched on the request alone would run a command for one
// that came in on another channel.
func TestSessionRequestsOnOtherChannels(t *testing.T) {
	for name := range sessionRules {
		for _, channelType := range []string{"direct-tcpip", "x11", "", "sessioN"} {
			if err := AllowRequest(FullPermissions(), Guest, channelType, name, text("sftp")); !errors.Is(err, ErrDenied) {
				t.Errorf("%s on a %q channel: %v, want ErrDenied", name, channelType, err)
			}
		}
	}
	if err := AllowRequest(FullPermissions(), Guest, "direct-tcpip", "keepalive@openssh.com", nil); err != nil {
		t.Errorf("a request that needs nothing on another channel: %v", err)
	}
}

func TestSubsystemPayloadMustBeReadable(t *testing.T) {
	for _, payload := range [][]byte{nil, {0, 0}, {0, 0, 0, 9, 's'}, append(text("sftp"), 'x')} {
		if err := AllowRequest(FullPermissions(), Guest, "session", "subsystem", payload); !errors.Is(err, ErrDenied) {
			t.Errorf("payload %x: %v, want ErrDenied", payload, err)
		}
	}
}

// A forced command is a command: it takes permit-exec to have it run, whatever
// a guest asks for.
func TestForceCommandOnlyNarrows(t *testing.T) {
	forced := func(extensions ...string) *ssh.Permissions {
		p := noPermissions()
		p.CriticalOptions[ForceCommand] = "/usr/bin/backup"
		for _, name := range extensions {
			p.Extensions[name] = ""
		}
		return p
	}
	for _, c := range []struct {
		what    string
		p       *ssh.Permissions
		request string
		payload []byte
		want    bool
	}{
		{"exec with permit-exec", forced(PermitExec), "exec", text("x"), true},
		{"exec without", forced(PermitSFTP, PermitPTY), "exec", text("x"), false},
		{"sftp with permit-sftp alone", forced(PermitSFTP), "subsystem", text("sftp"), false},
		{"sftp with permit-exec alone", forced(PermitExec), "subsystem", text("sftp"), false},
		{"sftp with both", forced(PermitSFTP, PermitExec), "subsystem", text("sftp"), true},
		{"shell on a PTY", forced(PermitPTY), "shell", nil, true},
		{"shell without anything", forced(), "shell", nil, false},
	} {
		err := AllowRequest(c.p, Guest, "session", c.request, c.payload)
		if (err == nil) != c.want {
			t.Errorf("%s: %v, want allowed %v", c.what, err, c.want)
		}
	}
}

// What narrows must be understood, or nothing may be done.
func TestCriticalOptionsThatCannotBeHeld(t *testing.T) {
	for option, value := range map[string]string{"verify-required": "", "no-such-option@example.com": "x", ForceCommand: ""} {
		p := FullPermissions()
		p.CriticalOptions = map[string]string{option: value}
		for _, c := range tableCases() {
			for _, from := range anySide {
				if c.ask(p, from, c.payload) == nil {
					t.Errorf("%s=%q: %s from the %v is allowed", option, value, c.name, from)
				}
			}
		}
	}
}

func TestForwardingLists(t *testing.T) {
	with := func(option, value string) *ssh.Permissions {
		p := FullPermissions()
		p.CriticalOptions = map[string]string{option: value}
		return p
	}
	for _, c := range []struct {
		value string
		host  string
		port  uint32
		want  bool
	}{
		{"localhost:80", "localhost", 80, true},
		{"localhost:80", "localhost", 81, false},
		{"localhost:80", "LOCALHOST", 80, false}, // literal, as sshd has it
		{"localhost:80", "127.0.0.1", 80, false},
		{"localhost:*", "localhost", 65535, true},
		{"*:80", "anywhere.example.com", 80, true},
		{"*:80", "anywhere.example.com", 8080, false},
		{"10.0.0.*:80", "10.0.0.1", 80, false}, // no patterns in permitopen
		{"a:1,b:2", "b", 2, true},
		{"a:1,b:2", "b", 1, false},
		{"[::1]:80", "::1", 80, true},
		{"a:1,b:2;b:2,c:3", "b", 2, true},
		{"a:1,b:2;b:2,c:3", "a", 1, false},
		{"a:1;", "a", 1, false},
		{"", "", 0, false},
		{"localhost", "localhost", 80, false},
	} {
		err := AllowChannel(with(PermitOpen, c.value), Guest, "direct-tcpip", directPayload(c.host, c.port))
		if (err == nil) != c.want {
			t.Errorf("permitopen %q to %s:%d: %v, want allowed %v", c.value, c.host, c.port, err, c.want)
		}
	}
	for _, c := range []struct {
		value string
		host  string
		port  uint32
		want  bool
	}{
		{"*:8080", "localhost", 8080, true},
		{"*:8080", "", 8080, true},
		{"*:8080", "localhost", 0, false}, // a port of the host's choice is not the one that was granted
		{"localhost:*", "localhost", 0, true},
		{"localhost:8080", "LocalHost", 8080, true},
		{"127.0.0.?:8080", "127.0.0.1", 8080, true},
		{"127.0.0.?:8080", "0.0.0.0", 8080, false},
	} {
		err := AllowGlobal(with(PermitListen, c.value), Guest, "tcpip-forward", forwardPayload(c.host, c.port))
		if (err == nil) != c.want {
			t.Errorf("permitlisten %q on %s:%d: %v, want allowed %v", c.value, c.host, c.port, err, c.want)
		}
	}
	for _, payload := range [][]byte{nil, {1}, append(directPayload("a", 1), 0)} {
		if AllowChannel(with(PermitOpen, "*:*"), Guest, "direct-tcpip", payload) == nil {
			t.Errorf("direct-tcpip with payload %x is allowed", payload)
		}
		if AllowGlobal(with(PermitListen, "*:*"), Guest, "tcpip-forward", payload) == nil {
			t.Errorf("tcpip-forward with payload %x is allowed", payload)
		}
	}
	if AllowChannel(with(PermitOpen, "*:*"), Guest, "direct-streamlocal@openssh.com", text("/run/docker.sock")) == nil {
		t.Error("permitopen leaves sockets open")
	}
	if AllowGlobal(with(PermitListen, "*:*"), Guest, "streamlocal-forward@openssh.com", text("/tmp/x")) == nil {
		t.Error("permitlisten leaves sockets open")
	}
}

func TestPermissionValuesAreTheCallersOwn(t *testing.T) {
	p := FullPermissions()
	delete(p.Extensions, PermitPTY)
	if _, ok := DefaultPermissions().Extensions[PermitPTY]; !ok {
		t.Error("changing one value changed the next")
	}
	want := FullPermissions()
	delete(want.Extensions, PermitGatewayPorts)
	if got := DefaultPermissions(); !maps.Equal(got.Extensions, want.Extensions) || len(want.Extensions) != len(permissionNames)-1 {
		t.Errorf("a plain key gets %v", got.Extensions)
	}
}
