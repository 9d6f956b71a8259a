def test_it(client):
    client.proxy()
    print(client.secret("P1"))
    print(client.hsm("new-setup-password", partition="P1", keep=True))
    print(client.hsm.logins(), client.hsm("report-summary"))
    client.hsm("network", state="down")
    print(client.secret("P1", state="updated", setup_password="ZZZZZ-AAAAA-AAAAA-AAAAA-AAAAA", retries=1))
    client.hsm("network", state="up")
    print(client.secret("P1", state="updated", setup_password="ZZZZZ-AAAAA-AAAAA-AAAAA-AAAAA", retries=1))
    print(client.secret("P1", state="absent"))
    assert 0
