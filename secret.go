package cairn

import (
	"crypto/sha256"
	"crypto/subtle"
)

// HashSecret makes the secret that is stored for a password: SHA-256(salt || password).
func HashSecret(salt []byte, password string) Secret {
	return Secret{Salt: salt, Hash: secretHash(salt, password)}
}

// Matches reports whether the password is the one that the secret was made from, in a time that does not tell how much of
// it is right. The zero Secret matches nothing.
func (s Secret) Matches(password string) bool {
	return len(s.Salt) > 0 && subtle.ConstantTimeCompare(s.Hash, secretHash(s.Salt, password)) == 1
}

func secretHash(salt []byte, password string) []byte {
	h := sha256.New()
	h.Write(salt)
	h.Write([]byte(password))
	return h.Sum(nil)
}
