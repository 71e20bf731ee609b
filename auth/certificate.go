package auth

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
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
	limit  *ssh.Permissions // what the certificate permits, with the identity's name
	remote netip.Addr
}

// newClaimant judges what a certificate says without a look at any list, so that
// how long it takes tells nothing about lists. Plain keys are not judged.
func newClaimant(id Identity, now time.Time) (*claimant, error) {
	who := &claimant{remote: id.Remote.Addr()}
	cert, ok := id.Key.(*ssh.Certificate)
	if !ok {
		who.listed = string(id.Key.Marshal())
		return who, nil
	}
	if err := checkUserCertificate(cert, who.remote, now); err != nil {
		return nil, denied("certificate: %v", plain(err))
	}
	who.cert, who.limit = cert, userCertificatePermissions(cert)
	who.listed = string(cert.SignatureKey.Marshal())
	return who, nil
}

// checkUserCertificate checks all that sshd does, but for authority and
// principals (sshkey_cert_check_authority and sshauthopt_from_cert there).
func checkUserCertificate(cert *ssh.Certificate, remote netip.Addr, now time.Time) error {
	if err := checkCertificateKeys(cert); err != nil {
		return err
	}
	if cert.CertType != ssh.UserCert {
		return fmt.Errorf("its type is %d, a user certificate is %d", cert.CertType, ssh.UserCert)
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
	if err := checkSigned(cert, cert.ValidPrincipals[0], now); err != nil {
		return err
	}
	return checkSourceAddress(cert, remote)
}

// checkSigned checks the authority's signature, the time, and that there is no
// critical option that is not understood.
func checkSigned(cert *ssh.Certificate, principal string, now time.Time) error {
	if cert.Signature == nil || !slices.Contains(caSignatures, cert.Signature.Format) {
		return errors.New("it is signed with an algorithm that is not accepted, such as SHA-1: sign it with ssh-keygen -t rsa-sha2-512, or an ed25519 key")
	}
	checker := ssh.CertChecker{
		SupportedCriticalOptions: criticalOptionNames,
		Clock:                    func() time.Time { return now },
	}
	return checker.CheckCert(principal, cert)
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
func (k *authorizedKey) admitCertificate(who *claimant, task TaskID) (*ssh.Permissions, error) {
	names := k.options.principals
	if names == nil {
		names = []string{string(task)}
	}
	if task == "" || !slices.ContainsFunc(names, func(name string) bool { return slices.Contains(who.cert.ValidPrincipals, name) }) {
		return nil, fmt.Errorf("certificate is for %.200q, and not for %.200q", who.cert.ValidPrincipals, names)
	}
	a, forcedByLine := ForcedCommand(k.options.permissions)
	b, forcedByCertificate := ForcedCommand(who.limit)
	if forcedByLine && forcedByCertificate && a != b {
		return nil, errors.New("certificate and line force different commands")
	}
	return Intersect(k.options.permissions, who.limit), nil
}
