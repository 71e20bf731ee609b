package issuer_test

import (
	"context"
	"fmt"

	"github.com/stagedoor/stagedoor/auth/issuer"
)

// Jobs of one organization on GitHub, and of one's own GitLab, may register.
func ExampleNewSet() {
	github := issuer.GitHubActions("")
	github.Require = map[string][]string{"repository_owner_id": {"123456"}}
	gitlab := issuer.GitLabCI("https://gitlab.example.com")

	var verifiers []*issuer.Verifier
	for _, p := range []issuer.Profile{github, gitlab} {
		v, err := issuer.New(p, "https://gateway.example.com", nil)
		if err != nil {
			fmt.Println(err)
			return
		}
		verifiers = append(verifiers, v)
	}
	set, err := issuer.NewSet(verifiers...)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer set.Close()

	fmt.Println(set.Provider("gh-16055123456-45312345678"), set.Provider("gl-302"))
	_, err = set.Verify(context.Background(), "hello")
	fmt.Println(err)
	// Output:
	// github gitlab
	// token is not valid: it is not a signed JWT: expected three parts joined by dots (was it cut off?)
}
