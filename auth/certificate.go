package auth

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/internal/printable"
)

// caSignatures are the algorithms by which an authority may sign. x/crypto would
// take SHA-1 (ssh-rsa) too.
var caSignatures = []string{
	ssh.KeyAlgoED25519, ssh.KeyAlgoSKED25519, ssh.KeyAlgoSKECDSA256,
	ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521,
	ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256,
}

// A claimant is an [Identity] that asks to be let in by its key or certificate.
type claimant struct {
	listed string           // wire format of the key to look for: their own, or the authority's
	cert   *ssh.Certificate // nil: a plain key
	remote netip.Addr
}

func newClaimant(id Identity) (*claimant, error) {
	who := &claimant{remote: id.Remote.Addr()}
	cert, ok := id.Key.(*ssh.Certificate)
	if !ok {
		who.listed = string(id.Key.Marshal())
		return who, nil
	}
	if err := checkCertificateKeys(cert); err != nil {
		return nil, denied("certificate: %v", plain(err))
	}
	who.cert, who.listed = cert, string(cert.SignatureKey.Marshal())
	return who, nil
}

// checkUserCertificate checks all that sshd does, but for authority and
// principals (sshkey_cert_check_authority and sshauthopt_from_cert there).
func checkUserCertificate(cert *ssh.Certificate, remote netip.Addr, now time.Time) error {
	if cert.CertType != ssh.UserCert {
		return fmt.Errorf("it is %s certificate, not a user's", kindOf(cert))
	}
	if len(cert.ValidPrincipals) == 0 {
		return errors.New("it names no principals, and would be anybody's: sign it with ssh-keygen -n")
	}
	if _, asked := cert.CriticalOptions["verify-required"]; asked {
		return errors.New("option verify-required is not supported: signatures are not checked for the PIN")
	}
	if err := usable(&cert.Permissions); err != nil {
		return err
	}
	if err := checkSigned(cert, now); err != nil {
		return err
	}
	return checkSourceAddress(cert, remote)
}

// kindOf says whose a certificate is, with its article.
func kindOf(cert *ssh.Certificate) string {
	switch cert.CertType {
	case ssh.UserCert:
		return "a user"
	case ssh.HostCert:
		return "a host"
	}
	return fmt.Sprintf("a type %d", cert.CertType)
}

// checkTimes is what x/crypto does, and names the times. Those that do not fit
// into a signed number are refused, as there.
func checkTimes(cert *ssh.Certificate, now time.Time) error {
	unix, after, before := now.Unix(), int64(cert.ValidAfter), int64(cert.ValidBefore)
	if after < 0 || unix < after {
		return fmt.Errorf("it is not yet valid, but from %s; the time here is %s", certificateTime(cert.ValidAfter), stamp(now))
	}
	if cert.ValidBefore != ssh.CertTimeInfinity && (before < 0 || unix >= before) {
		return fmt.Errorf("it expired at %s, the time here is %s: sign a new one", certificateTime(cert.ValidBefore), stamp(now))
	}
	return nil
}

func certificateTime(t uint64) string {
	if t > maxClaimTime {
		return "a time beyond the year 9999"
	}
	return stamp(time.Unix(int64(t), 0))
}

// DescribeKey names a key that a guest offers: by its fingerprint, which for a
// certificate is that of the key inside of it, as ssh-keygen -l shows them.
func DescribeKey(key ssh.PublicKey) string {
	cert, ok := key.(*ssh.Certificate)
	if !ok {
		return ssh.FingerprintSHA256(key)
	}
	if cert == nil || cert.Key == nil {
		return "(certificate)"
	}
	return fmt.Sprintf("%s (certificate %q)", ssh.FingerprintSHA256(cert.Key), identityName(cert.KeyId))
}

// DescribeUserCertificate says of a certificate what its holder can read in it
// too: whom it is for and, if it counts nowhere, at no time or not from remote,
// why. That reveals nothing about tasks, and may be shown to a stranger.
func DescribeUserCertificate(cert *ssh.Certificate, remote netip.Addr, now time.Time) string {
	if err := checkUserCertificate(cert, remote, now); err != nil {
		return printable.Text(err.Error(), maxErrorText)
	}
	return printable.Text(fmt.Sprintf("it lists the principals %.200q", cert.ValidPrincipals), maxErrorText)
}

// checkSigned checks the authority's signature and the time.
func checkSigned(cert *ssh.Certificate, now time.Time) error {
	if cert.Signature == nil || !slices.Contains(caSignatures, cert.Signature.Format) {
		return errors.New("it is signed with an algorithm that is not accepted, such as SHA-1: sign it with ssh-keygen -t rsa-sha2-512, or an ed25519 key")
	}
	if err := checkTimes(cert, now); err != nil {
		return err
	}
	// Principals and options are for the caller to check: x/crypto takes an
	// empty list of principals for anybody's.
	checker := ssh.CertChecker{Clock: func() time.Time { return now }}
	for name := range cert.CriticalOptions {
		checker.SupportedCriticalOptions = append(checker.SupportedCriticalOptions, name)
	}
	principal := ""
	if len(cert.ValidPrincipals) > 0 {
		principal = cert.ValidPrincipals[0]
	}
	return checker.CheckCert(principal, cert)
}

// checkSignature checks that the authority signed a certificate which is or was
// or will be in force.
func checkSignature(cert *ssh.Certificate) error {
	if cert.ValidAfter > maxClaimTime {
		return errors.New("it is not valid before the year 10000")
	}
	return checkSigned(cert, time.Unix(int64(cert.ValidAfter), 0))
}

func checkSourceAddress(cert *ssh.Certificate, remote netip.Addr) error {
	value, restricted := cert.CriticalOptions[SourceAddress]
	if !restricted {
		return nil
	}
	ok, err := sourceAddressPermits(value, remote)
	if err != nil {
		return fmt.Errorf("%s: %w", SourceAddress, err)
	}
	if !ok {
		return fmt.Errorf("%s does not list %v", SourceAddress, remote)
	}
	return nil
}

// userCertificatePermissions translates what a certificate permits. To sshd
// every certificate permits commands and sftp; one with any extension of ours
// was made for Stagedoor, and says so itself.
func userCertificatePermissions(cert *ssh.Certificate) *ssh.Permissions {
	p := certificatePermissions(&cert.Permissions)
	stock := true
	for name := range cert.Extensions {
		stock = stock && !strings.HasSuffix(name, "@stagedoor")
	}
	if stock {
		p.Extensions[PermitExec] = ""
		p.Extensions[PermitSFTP] = ""
	}
	if _, waived := cert.Extensions[noTouchRequired]; waived {
		p.Extensions[noTouchRequired] = ""
	}
	delete(p.CriticalOptions, SourceAddress) // has been checked, as from= has
	p.Extensions[ExtIdentity] = identityName(cert.KeyId)
	if p.Extensions[ExtIdentity] == "" {
		p.Extensions[ExtIdentity] = ssh.FingerprintSHA256(cert.Key)
	}
	return &p
}

// admitCertificate admits the holder of a certificate that is by this line's
// authority.
func (k *authorizedKey) admitCertificate(who *claimant, task TaskID, now time.Time) (*ssh.Permissions, error) {
	if err := checkUserCertificate(who.cert, who.remote, now); err != nil {
		return nil, fmt.Errorf("certificate: %w", plain(err))
	}
	names := k.options.principals
	if names == nil {
		names = []string{string(task)}
	}
	if !slices.ContainsFunc(names, func(name string) bool { return name != "" && slices.Contains(who.cert.ValidPrincipals, name) }) {
		return nil, fmt.Errorf("certificate lists the principals %.200q, and not %.200q", who.cert.ValidPrincipals, names)
	}
	if err := k.checkTouch(who.cert); err != nil {
		return nil, err
	}
	limit := userCertificatePermissions(who.cert)
	a, forcedByLine := ForcedCommand(k.options.permissions)
	b, forcedByCertificate := ForcedCommand(limit)
	if forcedByLine && forcedByCertificate && a != b {
		return nil, errors.New("certificate and line force different commands")
	}
	return Intersect(k.options.permissions, limit), nil
}

// checkTouch refuses a security key whose certificate waives the touch when this
// line does not. sshd would then ask for one; x/crypto takes the certificate's
// word, and does not tell whether there was one.
func (k *authorizedKey) checkTouch(cert *ssh.Certificate) error {
	if !strings.HasPrefix(cert.Key.Type(), "sk-") {
		return nil
	}
	_, byCertificate := cert.Extensions[noTouchRequired]
	_, byLine := k.options.permissions.Extensions[noTouchRequired]
	if byCertificate && !byLine {
		return fmt.Errorf("certificate waives the touch of a security key, the line of its authority does not (%s)", noTouchRequired)
	}
	return nil
}
