package gateway

import (
	"golang.org/x/crypto/ssh"

	"github.com/stagedoor/stagedoor/auth"
)

// keyIndex says which tasks' grants name a key, so that the offer of one costs a
// look-up and not a search through every grant.
type keyIndex map[string]map[auth.TaskID]struct{}

// keyID is what grants name a key by: itself, or the authority that signed a
// certificate. A key that is granted entry is no authority.
func keyID(key ssh.PublicKey) string {
	if key == nil {
		return "" // whoever came another way, whom no grant names by this
	}
	if cert, ok := key.(*ssh.Certificate); ok {
		return authorityID(cert.SignatureKey)
	}
	return string(key.Marshal())
}

func authorityID(key ssh.PublicKey) string { return "cert-authority " + string(key.Marshal()) }

// grantKeys returns what a grant names.
func grantKeys(grant *auth.Grant) ([]string, error) {
	authorities, plain, err := grant.Authorities()
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, key := range authorities {
		ids = append(ids, authorityID(key))
	}
	for _, key := range plain {
		ids = append(ids, keyID(key))
	}
	return ids, nil
}

// replace has a task be named by some keys instead of others.
func (x keyIndex) replace(task auth.TaskID, old, ids []string) {
	for _, id := range old {
		delete(x[id], task)
		if len(x[id]) == 0 {
			delete(x, id)
		}
	}
	for _, id := range ids {
		if x[id] == nil {
			x[id] = make(map[auth.TaskID]struct{})
		}
		x[id][task] = struct{}{}
	}
}

// named reports whether the grant of any task names a key.
func (s *Server) named(key ssh.PublicKey) bool {
	id := keyID(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.keys[id]) > 0
}

// grantNaming is the grant of a task's host if it names the key. Whatever else
// may be the case, it does the same work.
func (s *Server) grantNaming(task auth.TaskID, key ssh.PublicKey) *auth.Grant {
	id := keyID(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.keys[id][task]; !ok {
		return nil
	}
	return s.hosts[string(task)].grant
}
