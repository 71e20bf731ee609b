/*
 * A security key in software, for ssh's SecurityKeyProvider (OpenSSH's sk-api.h,
 * PROTOCOL.u2f). Its key handle is the private key itself. It is touched whenever
 * a key asks for a touch, and sets the flag for user presence only then: a key
 * made with -O no-touch-required signs without.
 */
#include <openssl/bn.h>
#include <openssl/ec.h>
#include <openssl/ecdsa.h>
#include <openssl/evp.h>
#include <openssl/obj_mac.h>
#include <openssl/sha.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define API_VERSION 0x000a0000 /* SSH_SK_VERSION_MAJOR of OpenSSH 9 */
#define ERR_GENERAL -1
#define ERR_UNSUPPORTED -2
#define ALG_ECDSA 0x00
#define ALG_ED25519 0x01
#define USER_PRESENT 0x01

struct sk_enroll_response {
	uint8_t flags;
	uint8_t *public_key;
	size_t public_key_len;
	uint8_t *key_handle;
	size_t key_handle_len;
	uint8_t *signature;
	size_t signature_len;
	uint8_t *attestation_cert;
	size_t attestation_cert_len;
	uint8_t *authdata;
	size_t authdata_len;
};

struct sk_sign_response {
	uint8_t flags;
	uint32_t counter;
	uint8_t *sig_r;
	size_t sig_r_len;
	uint8_t *sig_s;
	size_t sig_s_len;
};

struct sk_resident_key;

struct sk_option {
	char *name;
	char *value;
	uint8_t required;
};

uint32_t sk_api_version(void) { return API_VERSION; }

/* keep copies len bytes into a field that ssh frees. */
static int keep(uint8_t **to, size_t *to_len, const void *from, size_t len)
{
	if ((*to = malloc(len ? len : 1)) == NULL)
		return -1;
	memcpy(*to, from, len);
	*to_len = len;
	return 0;
}

static int make_ed25519(struct sk_enroll_response *r)
{
	uint8_t public[32], private[32];
	size_t public_len = sizeof public, private_len = sizeof private;
	EVP_PKEY *key = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
	int ok = key != NULL &&
	    EVP_PKEY_get_raw_public_key(key, public, &public_len) == 1 &&
	    EVP_PKEY_get_raw_private_key(key, private, &private_len) == 1 &&
	    keep(&r->public_key, &r->public_key_len, public, public_len) == 0 &&
	    keep(&r->key_handle, &r->key_handle_len, private, private_len) == 0;

	EVP_PKEY_free(key);
	return ok ? 0 : ERR_GENERAL;
}

static int make_ecdsa(struct sk_enroll_response *r)
{
	uint8_t public[65], private[32];
	EC_KEY *key = EC_KEY_new_by_curve_name(NID_X9_62_prime256v1);
	int ok = key != NULL && EC_KEY_generate_key(key) == 1 &&
	    EC_POINT_point2oct(EC_KEY_get0_group(key), EC_KEY_get0_public_key(key),
	        POINT_CONVERSION_UNCOMPRESSED, public, sizeof public, NULL) == sizeof public &&
	    BN_bn2binpad(EC_KEY_get0_private_key(key), private, sizeof private) == sizeof private &&
	    keep(&r->public_key, &r->public_key_len, public, sizeof public) == 0 &&
	    keep(&r->key_handle, &r->key_handle_len, private, sizeof private) == 0;

	EC_KEY_free(key);
	return ok ? 0 : ERR_GENERAL;
}

int sk_enroll(uint32_t alg, const uint8_t *challenge, size_t challenge_len,
    const char *application, uint8_t flags, const char *pin,
    struct sk_option **options, struct sk_enroll_response **response)
{
	struct sk_enroll_response *r = calloc(1, sizeof *r);

	(void)challenge, (void)challenge_len, (void)application, (void)pin, (void)options;
	if (r == NULL)
		return ERR_GENERAL;
	r->flags = flags;
	*response = r;
	switch (alg) {
	case ALG_ED25519:
		return make_ed25519(r);
	case ALG_ECDSA:
		return make_ecdsa(r);
	}
	return ERR_UNSUPPORTED;
}

static int sign_ed25519(const uint8_t *private, const uint8_t *text, size_t len, struct sk_sign_response *r)
{
	uint8_t sig[64];
	size_t sig_len = sizeof sig;
	EVP_PKEY *key = EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, NULL, private, 32);
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	int ok = key != NULL && ctx != NULL &&
	    EVP_DigestSignInit(ctx, NULL, NULL, NULL, key) == 1 &&
	    EVP_DigestSign(ctx, sig, &sig_len, text, len) == 1 &&
	    keep(&r->sig_r, &r->sig_r_len, sig, sig_len) == 0;

	EVP_MD_CTX_free(ctx);
	EVP_PKEY_free(key);
	return ok ? 0 : ERR_GENERAL;
}

static int sign_ecdsa(const uint8_t *private, const uint8_t *text, size_t len, struct sk_sign_response *r)
{
	uint8_t hash[SHA256_DIGEST_LENGTH], number[32];
	EC_KEY *key = EC_KEY_new_by_curve_name(NID_X9_62_prime256v1);
	BIGNUM *secret = BN_bin2bn(private, 32, NULL);
	ECDSA_SIG *sig = NULL;
	int ok = 0;

	SHA256(text, len, hash);
	if (key != NULL && secret != NULL && EC_KEY_set_private_key(key, secret) == 1 &&
	    (sig = ECDSA_do_sign(hash, sizeof hash, key)) != NULL) {
		ok = BN_bn2binpad(ECDSA_SIG_get0_r(sig), number, sizeof number) == sizeof number &&
		    keep(&r->sig_r, &r->sig_r_len, number, sizeof number) == 0 &&
		    BN_bn2binpad(ECDSA_SIG_get0_s(sig), number, sizeof number) == sizeof number &&
		    keep(&r->sig_s, &r->sig_s_len, number, sizeof number) == 0;
	}
	ECDSA_SIG_free(sig);
	BN_free(secret);
	EC_KEY_free(key);
	return ok ? 0 : ERR_GENERAL;
}

/* What is signed: SHA-256 of the application, flags, counter, SHA-256 of the data. */
int sk_sign(uint32_t alg, const uint8_t *data, size_t data_len,
    const char *application, const uint8_t *key_handle, size_t key_handle_len,
    uint8_t flags, const char *pin, struct sk_option **options,
    struct sk_sign_response **response)
{
	uint8_t text[SHA256_DIGEST_LENGTH + 1 + 4 + SHA256_DIGEST_LENGTH] = {0};
	struct sk_sign_response *r = calloc(1, sizeof *r);

	(void)pin, (void)options;
	if (r == NULL || key_handle_len != 32)
		return ERR_GENERAL;
	r->flags = flags & USER_PRESENT;
	r->counter = 7;
	SHA256((const uint8_t *)application, strlen(application), text);
	text[SHA256_DIGEST_LENGTH] = r->flags;
	text[SHA256_DIGEST_LENGTH + 4] = (uint8_t)r->counter;
	SHA256(data, data_len, text + SHA256_DIGEST_LENGTH + 5);
	*response = r;
	switch (alg) {
	case ALG_ED25519:
		return sign_ed25519(key_handle, text, sizeof text, r);
	case ALG_ECDSA:
		return sign_ecdsa(key_handle, text, sizeof text, r);
	}
	return ERR_UNSUPPORTED;
}

int sk_load_resident_keys(const char *pin, struct sk_option **options,
    struct sk_resident_key ***keys, size_t *n)
{
	(void)pin, (void)options, (void)keys, (void)n;
	return ERR_UNSUPPORTED;
}
