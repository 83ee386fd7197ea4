"""Tomcat with two contexts, `/` and `/shop`, whose cookies both are called JSESSIONID."""

import shutil
from pathlib import Path

import install
from application import Application, Lost, WebUser

SERVERS = Path(__file__).resolve().parents[1] / "servers/tomcat"
HOME = Path("/usr/share/tomcat10")


class TomcatUser(WebUser):
    """Logs in at both contexts, every second one at /shop first, and goes from one to the other."""

    def __init__(self, homing, number):
        super().__init__(homing, number)
        self.contexts = ["/", "/shop/"] if number % 2 else ["/shop/", "/"]
        self.homes, self.counts = {}, {}

    def login(self):
        for context in self.contexts:
            page = self.browser.page(f"{context}index.jsp", "POST", {"user": self.name}).json()
            self.homes[context], self.counts[context] = page["instance"], 0
        # Where the phases look for it; the other context may live elsewhere.
        self.instance = self.homes["/"]

    def use(self):
        home = self.instance
        for context in self.contexts:
            # Other pages of this context for a while, as people do.
            for _ in range(self.random.randint(1, 3)):
                self.instance, self.count = self.homes[context], self.counts[context]
                self.visit_path = f"{context}index.jsp"
                try:
                    super().use()
                except Lost as lost:
                    raise Lost(f"{context}: {lost}") from None
                finally:
                    self.instance, self.counts[context] = home, self.count

    def places(self):
        return set(self.homes.values())


class App(Application):
    name, title = "tomcat", "Tomcat, two contexts"
    affinity = 'key = "cookie:JSESSIONID"'
    health = "/health.txt"

    def install(self):
        install.debian("Tomcat 10", "tomcat10-common", HOME.exists())

    def start(self, started, instance, port, folder):
        (folder / "conf").mkdir()
        for name in ("temp", "logs", "work"):
            (folder / name).mkdir()
        shutil.copy(HOME / "etc/web.xml", folder / "conf/web.xml")
        shutil.copy(SERVERS / "server.xml", folder / "conf/server.xml")
        for context in ("ROOT", "shop"):
            target = folder / "webapps" / context
            target.mkdir(parents=True)
            for page in ("index.jsp", "state.jspf"):
                shutil.copy(SERVERS / page, target)
            (target / "health.txt").write_text("ok\n")
        return started.start(
            ["java", "-Xmx96m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", f"-Dport={port}", f"-Dinstance={instance}",
             f"-Dcatalina.home={HOME}", f"-Dcatalina.base={folder}", f"-Djava.io.tmpdir={folder}/temp",
             "-cp", f"{HOME}/bin/bootstrap.jar:{HOME}/bin/tomcat-juli.jar",
             "org.apache.catalina.startup.Bootstrap", "start"], folder / "log")

    def user(self, homing, number):
        return TomcatUser(homing, number)


APPS = (App,)
