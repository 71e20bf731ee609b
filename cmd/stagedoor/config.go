package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Config is what a gateway is told by a YAML file, by STAGEDOOR_* variables and
// by flags. All three are derived from its fields: ssh.listen in the file is
// STAGEDOOR_SSH_LISTEN in the environment and --ssh-listen on the command line.
// config.example.yaml explains each.
type Config struct {
	Domain   string  `yaml:"domain" help:"name by which agents and guests reach the gateway"`
	StateDir string  `yaml:"state_dir" kind:"path" help:"directory for the keys and certificates that the gateway makes"`
	SSH      SSH     `yaml:"ssh"`
	HTTPS    HTTPS   `yaml:"https"`
	Private  Private `yaml:"private"`
	Hosts    Hosts   `yaml:"hosts"`
	Guests   Guests  `yaml:"guests"`
	Forges   []Forge `yaml:"forges" help:"forges that accounts may be on, beside the public ones"`
	CAFile   string  `yaml:"ca_file" kind:"path" help:"certificates to trust beside the system's, of whom the gateway asks"`
	Limits   Limits  `yaml:"limits"`

	ProxyProtocol ProxyProtocol `yaml:"proxy_protocol"`

	Drain Drain `yaml:"drain"`
	Log   Log   `yaml:"log"`
	Audit Audit `yaml:"audit"`
}

// SSH is the listener for guests.
type SSH struct {
	Listen       string   `yaml:"listen" help:"address of the SSH listener, or off"`
	HostKeys     []string `yaml:"host_keys" kind:"path" help:"private host keys of the SSH listener"`
	NextHostKeys []string `yaml:"next_host_keys" kind:"path" help:"private host keys that guests' ssh shall know before they are used"`
	Address      string   `yaml:"address" help:"host:port that guests give to ssh"`

	ExtraAlgorithms []string `yaml:"extra_algorithms" help:"transport algorithms that guests are offered beside the usual"`
}

// HTTPS is the listener for agents, and for guests that cannot reach the other.
type HTTPS struct {
	Listen      string `yaml:"listen" help:"address of the HTTPS listener"`
	Certificate string `yaml:"certificate" kind:"path" help:"TLS certificate chain, in PEM"`
	Key         string `yaml:"key" kind:"path" help:"private key of the TLS certificate"`
	Address     string `yaml:"address" help:"host:port by which agents and browsers reach the HTTPS listener"`
	Agents      string `yaml:"agents" kind:"path" help:"directory with the agents' programs that jobs download, as make dist writes it, or off"`
	ACME        ACME   `yaml:"acme"`
}

// ACME fetches a certificate where none is configured.
type ACME struct {
	Email     string `yaml:"email" help:"where the certificate authority may write to"`
	Directory string `yaml:"directory" help:"URL of the ACME directory"`
}

// Private is the listener for the operator alone.
type Private struct {
	Listen      string `yaml:"listen" help:"address of health, readiness and metrics, or off"`
	AdminSocket string `yaml:"admin_socket" kind:"path" help:"socket of stagedoor ls, who, kick and block, or off"`
}

// Hosts says which agents may register.
type Hosts struct {
	TokenKeys   []string `yaml:"token_keys" kind:"path" help:"files, directories and https URLs of the keys that host tokens are verified with"`
	RenewalKeys []string `yaml:"renewal_keys" kind:"path" help:"private keys by which agents come back: the first signs, all count"`
	Audience    string   `yaml:"audience" help:"audience that host tokens must name"`
	Issuers     []Issuer `yaml:"issuers" help:"CI providers whose ID tokens are taken for host tokens"`
}

// Issuer is a CI provider. It is written in the file alone.
type Issuer struct {
	Profile  string              `yaml:"profile"`
	URL      string              `yaml:"url"`
	Issuer   string              `yaml:"issuer"`
	Audience string              `yaml:"audience"`
	Require  map[string][]string `yaml:"require"`
	Task     string              `yaml:"task"`

	TriggeringActor bool `yaml:"triggering_actor"`
}

// Guests says who may enter tasks beside those that a task's token names, and
// what guests may do at most.
type Guests struct {
	AuthorizedKeys []string    `yaml:"authorized_keys" kind:"path" help:"authorized_keys files of those who may enter every task"`
	Authorities    []Authority `yaml:"authorities" help:"authorities of yours whose user certificates open tasks"`
	RevokedKeys    []string    `yaml:"revoked_keys" kind:"path" help:"key revocation lists, or public keys, of whom nobody is let in"`
	Permissions    []string    `yaml:"permissions" help:"what guests may do at most"`
	PermitOpen     []string    `yaml:"permit_open" help:"host:port that guests may forward to at most"`
	PermitListen   []string    `yaml:"permit_listen" help:"host:port that guests may have a host listen on at most"`
	Webhook        Webhook     `yaml:"webhook"`
	SignIn         SignIn      `yaml:"sign_in"`
}

// SignIn is how guests get in who have no key that anybody knows.
type SignIn struct {
	Providers        []Provider    `yaml:"providers" help:"whom people may sign in with by a browser"`
	Allow            []SignInRule  `yaml:"allow" help:"people who may enter whatever a task's grant says"`
	RememberFor      time.Duration `yaml:"remember_for" help:"time that a key lets in whoever signed in by a browser and said that it is theirs, 0s: never"`
	OneTimePasswords bool          `yaml:"one_time_passwords" help:"let one guest in by the password that a job's log shows"`
}

// Provider knows people. It is written in the file alone.
type Provider struct {
	Name             string   `yaml:"name"`
	Kind             string   `yaml:"kind"`
	URL              string   `yaml:"url"`
	ClientID         string   `yaml:"client_id"`
	ClientSecretFile string   `yaml:"client_secret_file" kind:"path"`
	Scopes           []string `yaml:"scopes"`
	LoginClaim       string   `yaml:"login_claim"`
}

// SignInRule lets in people by what a provider says of them. It is written in the
// file alone.
type SignInRule struct {
	Provider string              `yaml:"provider"`
	Claims   map[string][]string `yaml:"claims"`
	Tasks    []string            `yaml:"tasks"`
}

// Authority signs user certificates. It is written in the file alone.
type Authority struct {
	Keys  []string            `yaml:"keys" kind:"path"`
	Tasks map[string][]string `yaml:"tasks"`
}

// Webhook is an endpoint that is asked whether a guest may enter a task.
type Webhook struct {
	URL         string        `yaml:"url" help:"https URL that is asked who may enter a task"`
	SecretFile  string        `yaml:"secret_file" kind:"path" help:"file with the secret that signs what is asked"`
	Timeout     time.Duration `yaml:"timeout" help:"time for the webhook to answer"`
	CacheFor    time.Duration `yaml:"cache_for" help:"longest time that an answer may count for"`
	Authorities []string      `yaml:"authorities" kind:"path" help:"public keys of those whose user certificates are told to the webhook"`
}

// Forge is one that accounts may be on. It is written in the file alone.
type Forge struct {
	Name        string `yaml:"name"`
	Kind        string `yaml:"kind"`
	URL         string `yaml:"url"`
	APIURL      string `yaml:"api_url"`
	TokenFile   string `yaml:"token_file" kind:"path"`
	KeysFromAPI bool   `yaml:"keys_from_api"`
}

// Limits are those of the gateway package, under the names of its fields.
type Limits struct {
	HandshakeTimeout         time.Duration `yaml:"handshake_timeout" help:"time to sign in"`
	Unauthenticated          int           `yaml:"unauthenticated" help:"connections that are signing in, in all"`
	UnauthenticatedPerSource int           `yaml:"unauthenticated_per_source" help:"connections that are signing in, from one address"`
	AuthTries                int           `yaml:"auth_tries" help:"keys that a guest may offer"`
	BrowserTimeout           time.Duration `yaml:"browser_timeout" help:"time to sign in by a browser"`
	BrowserWaiting           int           `yaml:"browser_waiting" help:"guests who wait for a browser, in all"`
	BrowserWaitingPerSource  int           `yaml:"browser_waiting_per_source" help:"guests who wait for a browser, from one address"`
	ConnectionsPerIdentity   int           `yaml:"connections_per_identity" help:"open connections of one identity"`
	ChannelsPerConnection    int           `yaml:"channels_per_connection" help:"open channels of one connection"`
	ChannelsPerIdentity      int           `yaml:"channels_per_identity" help:"open channels of one identity"`
	StreamsPerTunnel         int           `yaml:"streams_per_tunnel" help:"guests' connections to one host"`
	TunnelsPerTask           int           `yaml:"tunnels_per_task" help:"tunnels of one task, draining ones included"`
	BufferedBytes            Size          `yaml:"buffered_bytes" help:"memory for stalled channels, in all"`
	SessionTime              time.Duration `yaml:"session_time" help:"longest connection of a guest, 0s: no limit"`
	KeepaliveInterval        time.Duration `yaml:"keepalive_interval" help:"how often a silent guest is asked for a sign of life"`
	KeepaliveCount           int           `yaml:"keepalive_count" help:"unanswered questions that end a connection"`
	HostTimeout              time.Duration `yaml:"host_timeout" help:"wait for a host that is dialling again"`
	HostGrace                time.Duration `yaml:"host_grace" help:"time that a task without its host is remembered"`

	Penalties Penalties `yaml:"penalties"`
}

// Penalties are those of the gateway package, under the names of its fields.
type Penalties struct {
	Refused   time.Duration `yaml:"refused" help:"penalty of an address for a guest or agent that was refused"`
	NoSignIn  time.Duration `yaml:"no_sign_in" help:"penalty of an address for a connection that did not try to sign in"`
	Timeout   time.Duration `yaml:"timeout" help:"penalty of an address for a connection that took too long to sign in"`
	Crash     time.Duration `yaml:"crash" help:"penalty of an address for a connection that made a part of the gateway fail"`
	Threshold time.Duration `yaml:"threshold" help:"penalties that have to add up until an address is shut out"`
	Max       time.Duration `yaml:"max" help:"longest that an address is shut out, 0s: never"`
	Exempt    []string      `yaml:"exempt" help:"networks that get no penalties"`
}

// ProxyProtocol is about load balancers in front of the gateway.
type ProxyProtocol struct {
	From []string `yaml:"from" help:"networks of load balancers that say by the PROXY protocol who connects"`
}

// Drain says how the gateway ends on SIGTERM.
type Drain struct {
	LameDuck time.Duration `yaml:"lame_duck" help:"time to listen on when no longer ready"`
	Deadline time.Duration `yaml:"deadline" help:"time that open sessions get to end"`
}

// Log is what the gateway writes to standard error.
type Log struct {
	Level  string `yaml:"level" help:"debug, info, warn or error"`
	Format string `yaml:"format" help:"auto, text or json"`
}

// Audit is the stream of what happened, apart from the log.
type Audit struct {
	File string `yaml:"file" kind:"path" help:"file that the audit stream is added to, - for standard output, or off"`
}

// Size is a number of bytes, written as 1GiB, 512MiB, 64KiB or 4096.
type Size int64

// DefaultConfig returns what holds where nothing is configured. StateDir is
// empty when no directory of this user's is known.
func DefaultConfig() Config {
	stateDir, _ := defaultStateDir()
	return Config{
		StateDir: stateDir,
		SSH:      SSH{Listen: ":22"},
		HTTPS: HTTPS{
			Listen: ":443",
			ACME:   ACME{Directory: "https://acme-v02.api.letsencrypt.org/directory"},
		},
		Private: Private{Listen: "127.0.0.1:9180"},
		Hosts:   Hosts{Audience: "stagedoor"},
		Guests:  Guests{Permissions: shortPermissions(), Webhook: Webhook{Timeout: 5 * time.Second, CacheFor: 5 * time.Minute}, SignIn: SignIn{RememberFor: 12 * time.Hour}},
		Limits: Limits{
			HandshakeTimeout:         30 * time.Second,
			Unauthenticated:          1000,
			UnauthenticatedPerSource: 64,
			AuthTries:                6,
			BrowserTimeout:           5 * time.Minute,
			BrowserWaiting:           1000,
			BrowserWaitingPerSource:  64,
			ConnectionsPerIdentity:   512,
			ChannelsPerConnection:    128,
			ChannelsPerIdentity:      512,
			StreamsPerTunnel:         256,
			TunnelsPerTask:           4,
			BufferedBytes:            1 << 30,
			SessionTime:              24 * time.Hour,
			KeepaliveInterval:        15 * time.Second,
			KeepaliveCount:           3,
			HostTimeout:              15 * time.Second,
			HostGrace:                30 * time.Second,
			Penalties: Penalties{
				Refused:   5 * time.Second,
				NoSignIn:  time.Second,
				Timeout:   10 * time.Second,
				Crash:     90 * time.Second,
				Threshold: 15 * time.Second,
				Max:       10 * time.Minute,
				Exempt:    []string{"127.0.0.0/8", "::1/128"},
			},
		},
		Drain: Drain{Deadline: 10 * time.Minute},
		Log:   Log{Level: "info", Format: "auto"},
	}
}

// defaultStateDir is where keys live unless it is configured: what systemd made
// for the service (StateDirectory=), /var/lib for root, and a directory of the
// user's own otherwise.
func defaultStateDir() (string, error) {
	if dir, _, _ := strings.Cut(os.Getenv("STATE_DIRECTORY"), ":"); dir != "" {
		return dir, nil
	}
	if os.Geteuid() == 0 {
		return "/var/lib/stagedoor", nil
	}
	// The XDG specification says to ignore a relative path.
	if dir := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "stagedoor"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil || home == "" {
		return "", errors.New("no directory for keys: set state_dir (--state-dir), or HOME")
	}
	return filepath.Join(home, ".local", "state", "stagedoor"), nil
}

// off tells whether a listener is switched off. In the environment, where an
// empty variable counts as none, off is the only way to say so.
func off(listen string) bool { return listen == "" || listen == "off" }

// ParseSize reads a Size.
func ParseSize(s string) (Size, error) {
	number, shift := s, 0
	for i, unit := range []string{"KiB", "MiB", "GiB", "TiB"} {
		if n, ok := strings.CutSuffix(s, unit); ok {
			number, shift = strings.TrimSpace(n), 10*(i+1)
		}
	}
	n, err := parseInt(number)
	if err != nil || n < 0 || n > (1<<62)>>shift {
		return 0, fmt.Errorf("%q is not a size; write for example 512MiB or 1GiB", s)
	}
	return Size(n << shift), nil
}

// String writes s in the largest unit that divides it.
func (s Size) String() string {
	for i, unit := range []string{"TiB", "GiB", "MiB", "KiB"} {
		if shift := 10 * (4 - i); s != 0 && s&(1<<shift-1) == 0 {
			return fmt.Sprintf("%d%s", int64(s)>>shift, unit)
		}
	}
	return fmt.Sprint(int64(s))
}
