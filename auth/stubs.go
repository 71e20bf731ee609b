package auth

import (
	"context"
	"crypto/ed25519"
	"errors"
	"net/netip"
	"time"

	"golang.org/x/crypto/ssh"
)

var errSoon = errors.New("not written yet")

const (
	PermitPTY             = "permit-pty"
	PermitPortForwarding  = "permit-port-forwarding"
	PermitAgentForwarding = "permit-agent-forwarding"
	PermitX11Forwarding   = "permit-X11-forwarding"
	PermitExec            = "permit-exec@stagedoor"
	PermitSFTP            = "permit-sftp@stagedoor"
	PermitControl         = "permit-control@stagedoor"
	ForceCommand          = "force-command"
	SourceAddress         = "source-address"
	PermitOpen            = "permitopen@stagedoor"
	PermitListen          = "permitlisten@stagedoor"
	ExtIdentity           = "identity@stagedoor"
)

type Side int

const (
	Guest Side = iota
	Host
)

func FullPermissions() *ssh.Permissions                { return &ssh.Permissions{} }
func DefaultPermissions() *ssh.Permissions             { return &ssh.Permissions{} }
func IdentityName(p *ssh.Permissions) string           { return "" }
func SetIdentityName(p *ssh.Permissions, name string)  {}
func ForcedCommand(p *ssh.Permissions) (string, bool)  { return "", false }
func Intersect(a, b *ssh.Permissions) *ssh.Permissions { return &ssh.Permissions{} }

func AllowChannel(p *ssh.Permissions, from Side, channelType string, extra []byte) error {
	return errSoon
}
func AllowRequest(p *ssh.Permissions, from Side, channelType, requestType string, payload []byte) error {
	return errSoon
}
func AllowGlobal(p *ssh.Permissions, from Side, requestType string, payload []byte) error {
	return errSoon
}

type AuthorizedKeys struct{ Now func() time.Time }

func ParseAuthorizedKeys(name string, data []byte) (*AuthorizedKeys, error) { return nil, errSoon }
func (a *AuthorizedKeys) Warnings() []string                                { return nil }
func (a *AuthorizedKeys) Lines() []string                                   { return nil }
func (a *AuthorizedKeys) Authorize(ctx context.Context, id Identity, task Task) (*ssh.Permissions, error) {
	return nil, ErrDenied
}

type Grant struct {
	AuthorizedKeys []string
	Permissions    []string
	Until          time.Time
}

func (g *Grant) Check() error                             { return errSoon }
func (g *Grant) PublicKeys() ([]ssh.PublicKey, error)     { return nil, errSoon }
func (g *Grant) Permitted(now time.Time) *ssh.Permissions { return nil }

type GrantKeys struct{ Now func() time.Time }

func (g GrantKeys) Authorize(ctx context.Context, id Identity, task Task) (*ssh.Permissions, error) {
	return nil, ErrDenied
}

var (
	ErrTokenExpired = errors.New("token has expired")
	ErrTokenInvalid = errors.New("token is not valid")
)

const DefaultAudience = "stagedoor"

type Token struct {
	Task                         TaskID
	ID                           string
	Audience                     string
	IssuedAt, NotBefore, Expires time.Time
	Grant                        Grant
}

func MintToken(key any, t Token) (string, error) { return "", errSoon }

type TokenVerifier struct {
	Keys     []any
	Audience string
	Leeway   time.Duration
	MaxTTL   time.Duration
	Now      func() time.Time
}

func (v *TokenVerifier) Check() error                      { return errSoon }
func (v *TokenVerifier) Verify(raw string) (*Token, error) { return nil, errSoon }
func DecodeToken(raw string) (*Token, error)               { return nil, errSoon }

type Renewal struct {
	Task     TaskID
	AgentKey ed25519.PublicKey
	IssuedAt time.Time
	Deadline time.Time
	Grant    Grant
}

func MintRenewal(key ed25519.PrivateKey, r Renewal) (string, error) { return "", errSoon }
func VerifyRenewal(keys []ed25519.PublicKey, raw string, now time.Time) (*Renewal, error) {
	return nil, errSoon
}

func IssueGuestCertificate(ca ssh.Signer, id Identity, task TaskID, p *ssh.Permissions, now time.Time, ttl time.Duration) (*ssh.Certificate, error) {
	return nil, errSoon
}
func CheckGuestCertificate(raw []byte, ca ssh.PublicKey, task TaskID, remote netip.Addr, now time.Time) (*ssh.Permissions, error) {
	return nil, errSoon
}

func CheckKey(key ssh.PublicKey) error                                  { return errSoon }
func LoadSigner(path string) (ssh.Signer, error)                        { return nil, errSoon }
func LoadOrCreateSigner(path string) (ssh.Signer, bool, error)          { return nil, false, errSoon }
func LoadOrCreateEd25519(path string) (ed25519.PrivateKey, bool, error) { return nil, false, errSoon }
func LoadTokenKey(path string) (any, error)                             { return nil, errSoon }
func LoadTokenVerifyKey(path string) (any, error)                       { return nil, errSoon }
