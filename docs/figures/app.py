"""Take the picture of the page, docs/app.jpg: needs Playwright and Chromium, and a page that is served.

Example::

    make demo app &
    python docs/figures/app.py
"""

import shutil

from playwright.sync_api import sync_playwright

with sync_playwright() as client:
    browser = client.chromium.launch(executable_path=shutil.which('chromium'), args=['--no-sandbox'])
    page = browser.new_page(viewport=dict(width=1600, height=1000))
    page.goto('http://127.0.0.1:7860')
    page.locator('#examples button').nth(3).click()
    page.get_by_text('for the model').wait_for()
    page.screenshot(path='docs/app.jpg', type='jpeg', quality=85, clip=dict(x=0, y=0, width=1600, height=860))
    browser.close()
