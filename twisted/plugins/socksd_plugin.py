"""What twistd finds: the service, and the authenticators that strcred offers."""

from twisted.application.service import ServiceMaker

from socksd.identity.plugin import HtpasswdFactory

socks5 = ServiceMaker("socksd", "socksd.app.tap", "A SOCKS5 gateway with access control.", "socks5")
htpasswd = HtpasswdFactory()
