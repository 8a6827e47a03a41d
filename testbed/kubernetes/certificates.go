// Signing and writing certificates: authorities, what they sign for clients and servers, and the
// key of the service account tokens. All are valid for a year, which no testbed lasts.
package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	pem         []byte
}

type pair struct{ certificate, key []byte }

func client(name, group string) x509.Certificate {
	subject := pkix.Name{CommonName: name}
	if group != "" {
		subject.Organization = []string{group}
	}
	return x509.Certificate{Subject: subject, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
}

func serving(name string, hosts []string) x509.Certificate {
	template := x509.Certificate{
		Subject:     pkix.Name{CommonName: name},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, host := range hosts {
		if address := net.ParseIP(host); address != nil {
			template.IPAddresses = append(template.IPAddresses, address)
		} else {
			template.DNSNames = append(template.DNSNames, host)
		}
	}
	return template
}

// both is for a server that is also its own client, as etcd is.
func both(name string, hosts []string) x509.Certificate {
	template := serving(name, hosts)
	template.ExtKeyUsage = append(template.ExtKeyUsage, x509.ExtKeyUsageClientAuth)
	return template
}

func newAuthority(into, name string) (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := x509.Certificate{
		Subject:               pkix.Name{CommonName: name},
		IsCA:                  true,
		BasicConstraintsValid: true,
	}
	if err := dated(&template, x509.KeyUsageCertSign|x509.KeyUsageDigitalSignature); err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	made, err := encoded(der, key)
	if err != nil {
		return nil, err
	}
	if err := made.write(into, name); err != nil {
		return nil, err
	}
	return readAuthority(into, name)
}

func readAuthority(into, name string) (*authority, error) {
	certificate, err := os.ReadFile(filepath.Join(into, name+".crt"))
	if err != nil {
		return nil, err
	}
	key, err := os.ReadFile(filepath.Join(into, name+".key"))
	if err != nil {
		return nil, err
	}
	read := authority{pem: certificate}
	block, _ := pem.Decode(certificate)
	if read.certificate, err = x509.ParseCertificate(block.Bytes); err != nil {
		return nil, err
	}
	block, _ = pem.Decode(key)
	if read.key, err = x509.ParseECPrivateKey(block.Bytes); err != nil {
		return nil, err
	}
	return &read, nil
}

func (signer *authority) sign(template x509.Certificate) (*pair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	if err := dated(&template, x509.KeyUsageDigitalSignature); err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, &template, signer.certificate, key.Public(), signer.key)
	if err != nil {
		return nil, err
	}
	return encoded(der, key)
}

func dated(template *x509.Certificate, usage x509.KeyUsage) error {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return err
	}
	template.SerialNumber = serial
	template.KeyUsage = usage
	template.NotBefore = time.Now().Add(-time.Minute)
	template.NotAfter = time.Now().AddDate(1, 0, 0)
	return nil
}

func serviceAccountKey(into string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return err
	}
	made, err := encoded(nil, key)
	if err != nil {
		return err
	}
	shown := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public})
	if err := os.WriteFile(filepath.Join(into, "service-account.pub"), shown, 0o600); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(into, "service-account.key"), made.key, 0o600)
}

func encoded(certificate []byte, key *ecdsa.PrivateKey) (*pair, error) {
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, err
	}
	return &pair{
		certificate: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate}),
		key:         pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}),
	}, nil
}

func (made *pair) write(into, name string) error {
	if err := os.WriteFile(filepath.Join(into, name+".crt"), made.certificate, 0o600); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(into, name+".key"), made.key, 0o600)
}
