package auth

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
)

// IssueHostCertificate makes the certificate by which guests know a host that
// they reach end to end: an OpenSSH host certificate for key, good for names and
// from from until ttl later. Call it where tasks are made, never in a task: who
// holds ca can be every host. Names are those that guests give to ssh, the task
// (task-1234) and its name in the domain (task-1234.terminal.example.com), in
// lower case; patterns and empty lists, which would make a certificate for other
// tasks too, are refused. Clocks differ: let from be some minutes ago.
func IssueHostCertificate(ca ssh.Signer, key ssh.PublicKey, names []string, from time.Time, ttl time.Duration) (*ssh.Certificate, error) {
	if ca == nil {
		return nil, errors.New("host certificate: no CA key")
	}
	if err := checkHostNames(names); err != nil {
		return nil, fmt.Errorf("host certificate: %w", err)
	}
	if ttl < time.Second {
		return nil, fmt.Errorf("host certificate: time to live is %v, at least a second is needed", ttl)
	}
	if from.Unix() < 0 {
		return nil, errors.New("host certificate: it would begin before 1970")
	}
	cert := &ssh.Certificate{
		Key:             key,
		CertType:        ssh.HostCert,
		KeyId:           names[0],
		ValidPrincipals: slices.Clone(names),
		ValidAfter:      uint64(from.Unix()),
		ValidBefore:     uint64(from.Add(ttl).Unix()),
		SignatureKey:    ca.PublicKey(),
	}
	if err := checkCertificateKeys(cert); err != nil {
		return nil, fmt.Errorf("host certificate: %w", err)
	}
	if err := cert.SignCert(rand.Reader, ca); err != nil {
		return nil, fmt.Errorf("sign host certificate: %w", err)
	}
	return cert, nil
}

// maxHostNames is how many names a host certificate can have: OpenSSH reads no
// more than 256.
const maxHostNames = 256

func checkHostNames(names []string) error {
	if len(names) == 0 {
		return errors.New("it names no host, and would be every host's")
	}
	if len(names) > maxHostNames {
		return fmt.Errorf("it has %d names, %d are allowed", len(names), maxHostNames)
	}
	for _, name := range names {
		if len(name) > 253 || name == "" || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789._-:") != "" || !isTaskByte(name[0], true) {
			return fmt.Errorf("%.64q is no name of a host in lower case", name)
		}
	}
	return nil
}

// CheckHostCertificate says what is wrong with the host certificate that an
// agent was given: it must be a host certificate for key, in force at now, and
// have the task among its names, alone or as the first label of one. Who signed
// it is for guests to judge.
func CheckHostCertificate(cert *ssh.Certificate, key ssh.PublicKey, task TaskID, now time.Time) error {
	if err := checkHostCertificate(cert, key, task, now); err != nil {
		return fmt.Errorf("host certificate: %w", plain(err))
	}
	return nil
}

func checkHostCertificate(cert *ssh.Certificate, key ssh.PublicKey, task TaskID, now time.Time) error {
	if err := checkCertificateKeys(cert); err != nil {
		return err
	}
	switch {
	case key == nil:
		return errors.New("there is no host key")
	case cert.CertType != ssh.HostCert:
		return fmt.Errorf("it is %s certificate, not a host's: sign it with ssh-keygen -h", kindOf(cert))
	case !bytes.Equal(cert.Key.Marshal(), key.Marshal()):
		return fmt.Errorf("it is for the key %s, but the host key is %s", ssh.FingerprintSHA256(cert.Key), ssh.FingerprintSHA256(key))
	case len(cert.CriticalOptions) > 0:
		return errors.New("it has critical options, which make OpenSSH refuse it")
	}
	named := slices.ContainsFunc(cert.ValidPrincipals, func(name string) bool {
		return name == string(task) || strings.HasPrefix(name, string(task)+".")
	})
	if !named || task == "" {
		return fmt.Errorf("it is for %.200q, not for task %q: sign it with ssh-keygen -h -n %[2]s", cert.ValidPrincipals, task)
	}
	return checkSigned(cert, now)
}
