package overlay

import "fmt"

// Secret is one that the install needs and nothing in it makes.
type Secret struct {
	// For says what it is for, with what must be put in place of capital letters.
	For string
	// Command makes it, in one line.
	Command string
}

// secrets are those of the choices. The operator of postgres-cnpg, cert-manager and
// the scheduler make their own.
func (c Choices) secrets() (out []Secret) {
	switch c.Database {
	case "postgres":
		out = append(out, c.databaseSecret("The database's name and a new password", "jellyfin-database",
			`--from-literal=host=jellyfin-postgres --from-literal=port=5432 --from-literal=database=jellyfin --from-literal=username=jellyfin --from-literal=password="$(openssl rand -hex 24)"`))
	case "postgres-external":
		out = append(out, c.databaseSecret("The way to the database, unless the Secret is there: its HOST, USER and PASSWORD", c.DatabaseSecret,
			"--from-literal=host=HOST --from-literal=port=5432 --from-literal=database=jellyfin --from-literal=username=USER --from-literal=password=PASSWORD"))
	}
	if c.TLSSecret != "" && c.Issuer == "" {
		out = append(out, Secret{"The certificate of " + c.Host + ", unless the Secret is there: its files CERTIFICATE.PEM and KEY.PEM",
			fmt.Sprintf("kubectl -n %s create secret tls %s --cert=CERTIFICATE.PEM --key=KEY.PEM", c.Namespace, c.TLSSecret)})
	}
	return out
}

func (c Choices) databaseSecret(what, name, literals string) Secret {
	return Secret{what, fmt.Sprintf("kubectl -n %s create secret generic %s %s", c.Namespace, name, literals)}
}
