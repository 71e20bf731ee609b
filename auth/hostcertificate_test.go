package auth

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/internal/testenv"
)

var taskNames = []string{string(someTask), string(someTask) + ".terminal.example.com"}

func TestHostCertificate(t *testing.T) {
	ca, key := newSigner(t), newSigner(t).PublicKey()
	cert, err := IssueHostCertificate(ca, key, taskNames, noon, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	for now, want := range map[time.Time]string{
		noon:                              "",
		noon.Add(time.Hour - time.Second): "",
		noon.Add(-time.Second):            "not yet valid",
		noon.Add(time.Hour):               "expired",
	} {
		if err := CheckHostCertificate(cert, key, someTask, now); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("at %v: %v, want %q", now, err, want)
		}
	}
	checker := ssh.CertChecker{IsHostAuthority: func(k ssh.PublicKey, _ string) bool { return slices.Equal(k.Marshal(), ca.PublicKey().Marshal()) }, Clock: at(noon)}
	for _, name := range taskNames {
		if err := checker.CheckHostKey(name+":22", nil, cert); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestHostCertificateIsNotIssued(t *testing.T) {
	ca, key := newSigner(t), newSigner(t).PublicKey()
	many := make([]string, maxHostNames+1)
	for i := range many {
		many[i] = fmt.Sprintf("task-%d", i)
	}
	for what, c := range map[string]struct {
		ca    ssh.Signer
		key   ssh.PublicKey
		names []string
		from  time.Time
		ttl   time.Duration
	}{
		"no CA":             {nil, key, taskNames, noon, time.Hour},
		"no key":            {ca, nil, taskNames, noon, time.Hour},
		"a weak key":        {ca, rsaOf(t, 1024), taskNames, noon, time.Hour},
		"a certificate":     {ca, userCertificate(t, ca, nil), taskNames, noon, time.Hour},
		"no names":          {ca, key, nil, noon, time.Hour},
		"an empty name":     {ca, key, []string{"a", ""}, noon, time.Hour},
		"a pattern":         {ca, key, []string{"*.example.com"}, noon, time.Hour},
		"upper case":        {ca, key, []string{"Task-1"}, noon, time.Hour},
		"a list in a name":  {ca, key, []string{"a,b"}, noon, time.Hour},
		"a line in a name":  {ca, key, []string{"a\nb"}, noon, time.Hour},
		"a hyphen first":    {ca, key, []string{"-a"}, noon, time.Hour},
		"a very long name":  {ca, key, []string{strings.Repeat("a", 254)}, noon, time.Hour},
		"many names":        {ca, key, many, noon, time.Hour},
		"no time":           {ca, key, taskNames, noon, 0},
		"negative time":     {ca, key, taskNames, noon, -time.Hour},
		"before the epoch":  {ca, key, taskNames, time.Unix(-2, 0), time.Hour},
		"from no given day": {ca, key, taskNames, time.Time{}, time.Hour},
	} {
		if cert, err := IssueHostCertificate(c.ca, c.key, c.names, c.from, c.ttl); err == nil || cert != nil {
			t.Errorf("%s: %v, %v", what, cert, err)
		}
	}
}

// What the backend of a CI makes with ssh-keygen, right and wrong.
func TestHostCertificatesMadeBySSHKeygen(t *testing.T) {
	dir := t.TempDir()
	keygen(t, dir, "-q", "-t", "ed25519", "-N", "", "-f", "ca")
	keygen(t, dir, "-q", "-t", "rsa", "-b", "2048", "-N", "", "-f", "rsa")
	key := newSigner(t).PublicKey()
	for flags, want := range map[string]string{
		"-h -n task-1234": "",
		"-h -n task-1234,task-1234.terminal.example.com": "",
		"-h -n task-1234.terminal.example.com":           "",
		"-h -n other,task-1234 -V -1h:+1h":               "",
		"-h -n task-123,task-12345,xtask-1234":           "not for task",
		"-h -n task-1234x.example.com":                   "not for task",
		"-h -n *":                                        "not for task",
		"-h -n task-*.example.com":                       "not for task",
		"-h":                                             "not for task",
		"-n task-1234":                                   "ssh-keygen -h",
		"-h -n task-1234 -V -2h:-1h":                     "expired",
		"-h -n task-1234 -V +1h:+2h":                     "not yet valid",
		"-h -n task-1234 -O critical:new@example.com=x":  "critical",
		"-h -n task-1234 -O extension:new@example.com=x": "",
	} {
		cert := signByKeygen(t, dir, "ca", key, strings.Fields(flags)...)
		err := CheckHostCertificate(cert, key, someTask, time.Now())
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", flags, err, want)
		}
		if err != nil {
			testenv.CheckText(t, err)
		}
	}
	for hash, want := range map[string]bool{"rsa-sha2-512": true, "ssh-rsa": false} {
		cert := signByKeygen(t, dir, "rsa", key, "-h", "-n", "task-1234", "-t", hash)
		if err := CheckHostCertificate(cert, key, someTask, time.Now()); (err == nil) != want {
			t.Errorf("%s: %v", hash, err)
		}
	}
	good := signByKeygen(t, dir, "ca", key, "-h", "-n", "task-1234")
	forged := *good
	forged.Serial++
	for what, err := range map[string]error{
		"of another key": CheckHostCertificate(good, newSigner(t).PublicKey(), someTask, time.Now()),
		"without a key":  CheckHostCertificate(good, nil, someTask, time.Now()),
		"of no task":     CheckHostCertificate(good, key, "", time.Now()),
		"changed":        CheckHostCertificate(&forged, key, someTask, time.Now()),
		"none":           CheckHostCertificate(nil, key, someTask, time.Now()),
	} {
		if err == nil {
			t.Errorf("%s: it is good", what)
		}
	}
}

// The stock client takes the certificate by one line of known_hosts, under each
// of its names and under no other, and refuses it when its time is over.
func TestStockClientKnowsTheHostCertificate(t *testing.T) {
	ca, host := newSigner(t), newSigner(t)
	cert, err := IssueHostCertificate(ca, host.PublicKey(), taskNames, time.Now().Add(-time.Hour), 2*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	old, err := IssueHostCertificate(ca, host.PublicKey(), taskNames, time.Now().Add(-2*time.Hour), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		cert *ssh.Certificate
		want string // what ssh says: known once it comes to keys, which are refused
	}{
		{taskNames[0], cert, "Permission denied"},
		{taskNames[1], cert, "Permission denied"},
		{strings.ToUpper(taskNames[1]), cert, "Permission denied"},
		{"task-1.terminal.example.com", cert, "Host key verification failed"},
		{taskNames[1], old, "Host key verification failed"},
	} {
		if out := askStockClient(t, ca.PublicKey(), host, c.cert, c.name); !strings.Contains(out, c.want) {
			t.Errorf("%s: ssh says %q, want %q", c.name, out, c.want)
		}
	}
}

// askStockClient runs ssh against a server that has a host key and certificate
// and lets nobody in, and returns what ssh says.
func askStockClient(t *testing.T, ca ssh.PublicKey, host ssh.Signer, cert *ssh.Certificate, name string) string {
	t.Helper()
	certified, err := ssh.NewCertSigner(cert, host)
	if err != nil {
		t.Fatal(err)
	}
	config := &ssh.ServerConfig{PublicKeyCallback: func(ssh.ConnMetadata, ssh.PublicKey) (*ssh.Permissions, error) {
		return nil, errors.New("nobody")
	}}
	config.AddHostKey(certified)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		nc, err := l.Accept()
		if err != nil {
			return
		}
		defer nc.Close()
		ssh.NewServerConn(nc, config)
	})
	defer serving.Wait()
	defer l.Close()
	dir := t.TempDir()
	known := writeFile(t, 0o600, []byte("@cert-authority *.terminal.example.com,task-1234 "+line(ca, "")+"\n"), dir, "known_hosts")
	_, port, _ := net.SplitHostPort(l.Addr().String())
	cmd := exec.CommandContext(t.Context(), program(t, "ssh"), "-F", os.DevNull, "-p", port, "-o", "HostName=127.0.0.1", "-o", "HostKeyAlias="+name,
		"-o", "UserKnownHostsFile="+known, "-o", "GlobalKnownHostsFile=none", "-o", "StrictHostKeyChecking=yes", "-o", "BatchMode=yes",
		"-o", "IdentitiesOnly=yes", "-i", filepath.Join(dir, "none"), "somebody@"+name, "true")
	out, _ := cmd.CombinedOutput()
	return string(out)
}

func FuzzCheckHostCertificate(f *testing.F) {
	ca, key := newSigner(f), newSigner(f).PublicKey()
	cert, err := IssueHostCertificate(ca, key, taskNames, noon.Add(-time.Hour), 2*time.Hour)
	if err != nil {
		f.Fatal(err)
	}
	good := string(cert.Marshal())
	f.Add([]byte(good))
	f.Add(userCertificate(f, ca, nil).Marshal())
	f.Fuzz(func(t *testing.T, raw []byte) {
		parsed, err := ssh.ParsePublicKey(raw)
		if err != nil {
			return
		}
		cert, ok := parsed.(*ssh.Certificate)
		if !ok {
			return
		}
		if err := CheckHostCertificate(cert, key, someTask, noon); err != nil {
			testenv.CheckText(t, err)
		} else if string(cert.Marshal()) != good {
			t.Fatalf("a certificate that nobody signed is good: %q", raw)
		}
	})
}
