"""What strcred finds: ``--auth htpasswd:FILE``."""

from __future__ import annotations

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.strcred import ICheckerFactory
from twisted.plugin import IPlugin
from zope.interface import implementer

from socksd.errors import ConfigError, Problem


@implementer(IPlugin, ICheckerFactory)
class HtpasswdFactory:
    """Makes a checker of an htpasswd file."""

    authType = "htpasswd"
    argStringFormat = "FILE"
    authHelp = """
    Users and passwords in an htpasswd file, hashed with bcrypt and nothing
    weaker. `socksd passwd FILE USER` or `htpasswd -B FILE USER` sets a
    password; changes count within a second, without a reload.
    """
    credentialInterfaces = (IUsernamePassword,)

    def generateChecker(self, argstring: str) -> ICredentialsChecker:
        """
        Make the checker of the file *argstring*.

        Raises:
            ConfigError: There is no such file, or not all of it can be used.
        """
        if not argstring:
            raise ConfigError([Problem("", "no file; write htpasswd:FILE")])
        # Here, for every program that looks for plugins imports this module.
        from socksd.identity.checker import HtpasswdChecker

        return HtpasswdChecker(argstring)
