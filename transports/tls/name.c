#include "transports/tls/name.h"

#include <arpa/inet.h>
#include <openssl/x509v3.h>
#include <string.h>

#include "core/base/text.h"

/* Subjects are no names of hosts (RFC 6125), and "f*.example.com" is nobody's. */
#define HOST_FLAGS (X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS | X509_CHECK_FLAG_NEVER_CHECK_SUBJECT)

static int refuse(const char *given, const char *why, struct tls_failure *failure) {
    char shown[TEXT_ESCAPED_SIZE(48)];
    tram__text_escape(shown, sizeof shown, given, strnlen(given, 48));
    return tram__tls_fail(failure, TRAM_EVALUE, "server_hostname", "server_hostname: \"%s\" %s", shown, why);
}

static bool is_address(const char *text) {
    unsigned char address[16];
    return inet_pton(AF_INET, text, address) == 1 || inet_pton(AF_INET6, text, address) == 1;
}

static bool is_label_byte(unsigned char byte) {
    return (byte >= '0' && byte <= '9') || (byte >= 'A' && byte <= 'Z') || (byte >= 'a' && byte <= 'z') ||
           byte == '-' || byte == '_' || byte == '.';
}

int tram__tls_name_parse(const char *given, struct tls_name *ret_name, struct tls_failure *failure) {
    ret_name->text[0] = '\0';
    ret_name->address = false;
    size_t length = given ? strlen(given) : 0;
    if (length == 0)
        return 0;
    for (size_t i = 0; i < length; i++)
        if ((unsigned char)given[i] > 127)
            return refuse(given, "is not ASCII: give its A-labels (xn--...)", failure);
    if (length >= sizeof ret_name->text)
        return refuse(given, "is too long", failure);
    memcpy(ret_name->text, given, length + 1);
    char *scope = strchr(ret_name->text, '%'); /* an interface of ours is in no certificate */
    if (scope)
        *scope = '\0';
    ret_name->address = is_address(ret_name->text);
    if (ret_name->address)
        return 0;
    if (scope)
        return refuse(given, "is no host name", failure);
    if (ret_name->text[length - 1] == '.') /* the root's, which is not sent (RFC 6066, 3) */
        ret_name->text[--length] = '\0';
    if (length == 0 || ret_name->text[0] == '.' || strstr(ret_name->text, ".."))
        return refuse(given, "is no host name", failure);
    for (size_t i = 0; i < length; i++)
        if (!is_label_byte((unsigned char)ret_name->text[i]))
            return refuse(given, "is no host name", failure);
    return 0;
}

int tram__tls_name_use(SSL *ssl, const struct tls_name *name, bool check, struct tls_failure *failure) {
    if (name->text[0] == '\0')
        return 0;
    bool good = name->address || SSL_set_tlsext_host_name(ssl, name->text);
    if (good && check) {
        X509_VERIFY_PARAM *param = SSL_get0_param(ssl);
        X509_VERIFY_PARAM_set_hostflags(param, HOST_FLAGS);
        good = name->address ? X509_VERIFY_PARAM_set1_ip_asc(param, name->text)
                             : X509_VERIFY_PARAM_set1_host(param, name->text, 0);
    }
    return good ? 0 : tram__tls_fail_openssl(failure, -ENOMEM, "server_hostname", "server_hostname");
}

bool tram__tls_name_fits(const struct tls_name *name, X509 *certificate) {
    if (name->text[0] == '\0')
        return true;
    if (name->address)
        return X509_check_ip_asc(certificate, name->text, 0) == 1;
    return X509_check_host(certificate, name->text, 0, HOST_FLAGS, NULL) == 1;
}
