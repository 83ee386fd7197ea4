"""Tomcat for clients without cookies: the session id is in the path of every link, `;jsessionid=`."""

from application import WebUser

from apps import tomcat


class LinkUser(WebUser):
    cookies = False

    def login(self):
        self.count = 0
        page = self.browser.page("/shop/index.jsp", "POST", {"user": self.name}).json()
        self.instance, self.visit_path = page["instance"], page["link"]

    def use(self):
        super().use()


class App(tomcat.App):
    name, title = "tomcat-urls", "Tomcat, ;jsessionid= in URLs"
    affinity = 'key = ["cookie:JSESSIONID", "path-parameter:jsessionid"]'

    def user(self, homing, number):
        return LinkUser(homing, number)


APPS = (App,)
