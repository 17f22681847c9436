"""Rules for tokens that say by a prefix who issued them."""

from __future__ import annotations

from mxc_kernel.output.looks import no_name, no_nucleotides, scrambled
from mxc_kernel.output.rules import ALNUM, WORD, Rule, labelled, token

__all__ = ["VENDORS"]

_HEX = "[0-9a-f]"
_ANYHEX = "[0-9a-fA-F]"
_ALNUM = "[A-Za-z0-9]"
_B64 = r"[A-Za-z0-9+/=]"
_UUID = r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}"
_DOTTED = r"[\w.-]"
_DOTTED64 = r"[\w.=-]"


def _discord_anchors() -> tuple[str, ...]:
    """Return how the Base64 of a user id may begin; ids are decimal numbers."""
    pairs = ("MT", "Mj", "Mz", "ND", "NT", "Nj", "Nz", "OD", "OT")
    return tuple(pair + third for pair in pairs for third in "AEIMQUYcgk")


_CLOUD = (
    Rule(
        "aws-access-key",
        ("AKIA", "ASIA", "ABIA", "ACCA", "A3T"),
        r"(?:AKIA|ASIA|ABIA|ACCA|A3T[A-Z0-9])[A-Z0-9]{16}",
        "[A-Z0-9]",
        before=WORD + "+/",
        check=no_nucleotides,
    ),
    labelled(
        "aws-secret-key",
        "aws_secret_access_key AWS_SECRET_ACCESS_KEY aws_secret_key AWS_SECRET_KEY SecretAccessKey "
        "secretAccessKey secret_access_key SECRET_ACCESS_KEY aws_secret AWS_SECRET awsSecretKey "
        "aws_session_token AWS_SESSION_TOKEN SessionToken sessionToken",
        "[A-Za-z0-9+/]{40}",
        _B64,
    ),
    Rule(
        "aws-secret-key",
        ("aws", "AWS", "Aws"),
        "[A-Za-z0-9+/]{40}",
        _B64,
        lead=r"""(?:aws|AWS|Aws)[\w.-]{0,30}?(?:[kK]ey|KEY|[sS]ecret|SECRET|[pP]w|PW|[tT]oken)"""
        r"""[\w.-]{0,16}[\s"'`=:>\\,|(]{1,12}""",
        before="abcdefghijklmnopqrstuvwxyz",
        check=lambda text: scrambled(text) and text.lower() != text,
    ),
    token("aws-bedrock-key", "ABSK", 100, _B64, before=WORD + "+/"),
    token("aws-bedrock-key", "bedrock-api-key-", 40, _B64),
    token("alibaba-key", "LTAI", 16, _ALNUM, check=no_name),
    token("tencent-key", "AKID", 32, _ALNUM, before=WORD + "-+/", check=no_name),
    token("yandex-key", "AQVN", 35, check=no_name),
    token("google-api-key", "AIza", 35),
    token("google-oauth", "GOCSPX-", 24),
    token("google-oauth", "ya29.", 20, _DOTTED),
    token("google-oauth", "1//0", 40, before=WORD + "-:/."),
    labelled(
        "azure-storage-key",
        "AccountKey SharedAccessKey AZURE_STORAGE_KEY AZURE_STORAGE_ACCOUNT_KEY account_key "
        "AZURE_STORAGE_ACCESS_KEY storageAccountKey storage_account_key accountKey ACCOUNT_KEY "
        "storage_key STORAGE_KEY StorageKey storageKey",
        "[A-Za-z0-9+/]{40}",
        _B64,
    ),
    Rule(
        "azure-sas",
        ("sig=",),
        "(?:[A-Za-z0-9+/]|%[0-9A-Fa-f]{2}){42}",
        "[A-Za-z0-9+/%=]",
        lead="(?<![A-Za-z])sig=",
    ),
    Rule(
        "azure-client-secret",
        # The characters before the anchor are the hint that Azure's portal itself displays.
        ("Q~",),
        r"(?<=[\w~.-]{3}[0-9])Q~[\w~.-]{31}",
        r"[\w~.-]",
    ),
    labelled(
        "azure-devops",
        "AZURE_DEVOPS_EXT_PAT SYSTEM_ACCESSTOKEN AZP_TOKEN azure_devops_pat AZURE_DEVOPS_PAT "
        "AZURE_DEVOPS_TOKEN azure_devops_token azureDevOpsPat AzureDevOpsPAT ADO_PAT ado_pat "
        "VSTS_PAT vsts_pat vsts_token VSTS_TOKEN azdo_pat AZDO_PAT ADO_TOKEN ado_token "
        "AZURE_PAT azure_pat AZDO_PERSONAL_ACCESS_TOKEN",
        "[A-Za-z0-9]{52}",
        "[A-Za-z0-9]",
    ),
    token("digitalocean-token", "dop_v1_ doo_v1_ dor_v1_", 32, _HEX),
    token("cloudflare-key", "v1.0-", 140, "[0-9a-f-]"),
    token("heroku-key", "HRKU-AA", 40),
    labelled(
        "heroku-key",
        "HEROKU_API_KEY HEROKU_KEY heroku_api_key heroku_key herokuApiKey",
        _UUID,
        "[0-9a-fA-F-]",
    ),
    token("fly-token", "fo1_ fm1r_ fm1a_ fm2_", 40, r"[\w+/=-]"),
    token("vault-token", "hvs. hvb. hvr.", 24, _DOTTED),
    Rule(
        "terraform-token",
        (".atlasv1.",),
        r"(?<=[A-Za-z0-9]{14})\.atlasv1\.[\w=-]{50}",
        r"[\w=-]",
    ),
    token("pulumi-token", "pul-", 40, _HEX),
    token("doppler-token", "dp.pt. dp.st. dp.ct. dp.sa. dp.scim. dp.audit.", 36, _DOTTED),
    token("supabase-key", "sbp_", 40, _HEX),
    token("supabase-key", "sb_secret_", 20),
    token("planetscale-token", "pscale_tkn_ pscale_pw_ pscale_oauth_", 30, _DOTTED64),
    token("databricks-token", "dapi", 32, "[0-9a-f-]"),
    token("tailscale-key", "tskey-", 20),
    token("openshift-token", "sha256~", 40),
    token("1password-token", "ops_eyJ", 100, _B64),
    token("age-key", "AGE-SECRET-KEY-1", 50, "[A-Z0-9]"),
)

_CODE = (
    token("github-token", "ghp_ gho_ ghu_ ghs_ ghr_", 30, r"\w", before=ALNUM + "-"),
    token("github-token", "github_pat_", 30, r"\w"),
    token(
        "gitlab-token",
        "glpat- gldt- glft- glsoat- glrt- glrtr- glcbt- glptt- glagent- glimt- glffct- gloas- "
        "glwt-",
        20,
        _DOTTED,
    ),
    token("gitlab-token", "GR1348941", 20),
    token("gitlab-token", "_gitlab_session=", 32, _HEX, before=""),
    token("bitbucket-token", "ATBB", 28, "[A-Za-z0-9_=-]", check=no_name),
    token("atlassian-token", "ATATT3 ATCTT3", 60, r"[\w=-]"),
    token("npm-token", "npm_", 30, _ALNUM, check=no_name),
    token("pypi-token", "pypi-AgEI pypi-AgEN", 40),
    token("rubygems-token", "rubygems_", 48, _HEX),
    token("clojars-token", "CLOJARS_", 56, _ALNUM),
    token("nuget-key", "oy2", 43, "[a-z0-9]", check=no_name),
    token("docker-token", "dckr_pat_ dckr_oat_", 20),
    token("artifactory-key", "AKCp cmVmd", 56, _ALNUM, before=WORD + "-+/"),
    token("circleci-token", "CCIPAT_ CCIPRJ_", 30),
    token("buildkite-token", "bkua_ bkat_", 36, _ALNUM),
    token("sonar-token", "sqp_ squ_ sqa_", 40, _HEX),
    token("sourcegraph-token", "sgp_", 40, r"\w", check=no_name),
    token("postman-key", "PMAK-", 50, "[0-9a-fA-F-]"),
    token("octopus-key", "API-", 26, "[A-Z0-9]", check=no_name),
    token("readme-key", "rdme_", 60, "[a-z0-9]"),
    token("prefect-token", "pnu_ pnb_", 36, _ALNUM),
)

_MODELS = (
    token("hugging-face", "hf_", 30, _ALNUM, check=no_name),
    token("hugging-face", "api_org_", 30, _ALNUM, check=no_name),
    Rule(
        "openai-key",
        ("sk-",),
        r"sk-(?:(?:proj|svcacct|admin|service|None)-[\w-]{24}|or-v1-[\w-]{32}|[A-Za-z0-9]{32})",
        r"[\w-]",
        before=ALNUM + "-",
        check=no_name,
    ),
    Rule("anthropic-key", ("sk-ant-",), r"sk-ant-[\w-]{24}", r"[\w-]", before=ALNUM + "-"),
    token("groq-key", "gsk_", 40, _ALNUM),
    token("xai-key", "xai-", 60, _ALNUM),
    token("perplexity-key", "pplx-", 40, _ALNUM),
    token("nvidia-key", "nvapi-", 50),
    token("replicate-token", "r8_", 36, _ALNUM, check=no_name),
    token("langsmith-key", "lsv2_pt_ lsv2_sk_", 32, r"\w"),
    token("pinecone-key", "pcsk_", 40, r"\w"),
    token("elevenlabs-key", "sk_", 48, _HEX),
    token("tavily-key", "tvly-", 24, check=no_name),
)

_SERVICES = (
    token(
        "slack-token",
        "xoxb- xoxp- xoxa- xoxr- xoxs- xoxe- xoxc- xoxd- xoxo- xoxe.",
        12,
        r"[\w%.-]",
    ),
    token("slack-token", "xapp-", 24),
    Rule(
        "slack-webhook",
        ("hooks.slack.com/",),
        r"[A-Za-z0-9]{6}",
        r"[\w/-]",
        lead=r"hooks\.slack\.com/(?:services|workflows|triggers)/",
    ),
    Rule(
        "teams-webhook",
        (".webhook.office.com/", ".logic.azure.com"),
        r"[\w%./@:?=&-]{60}",
        r"[\w%./@:?=&-]",
        lead=r"\.(?:webhook\.office\.com/webhookb2/|logic\.azure\.com(?::443)?/workflows/)",
    ),
    Rule(
        "discord-token",
        _discord_anchors(),
        r"[MNO][DTjz][AEIMQUYcgk][wxyz0-5](?:[MNO][DTjz][AEIMQUYcgk][wxyz0-5]){4}[\w-]{2,8}\.[\w-]{6}\.[\w-]{20}",
        r"[\w-]",
        before=WORD + "-+/",
    ),
    Rule(
        "discord-token",
        ("discord", "DISCORD", "Discord"),
        r"[\w-]{23,28}\.[\w-]{6}\.[\w-]{20}",
        r"[\w-]",
        lead=r"""(?:discord|DISCORD|Discord)[\w.-]{0,30}[\s"'`=:>\\,|(]{1,12}(?:Bot )?""",
    ),
    Rule(
        "discord-webhook",
        ("/api/webhooks/",),
        r"[\w-]{40}",
        r"[\w-]",
        lead=r"/api/webhooks/[0-9]{15,21}/",
    ),
    Rule("telegram-token", (":AA",), r"(?<=[0-9]{8}):AA[\w-]{30}", r"[\w-]"),
    Rule(
        "telegram-token",
        ("elegram", "ELEGRAM", "BOT_TOKEN", "bot_token", "botToken"),
        r":[\w-]{30}",
        r"[\w-]",
        lead=r"""[\w.-]{2,40}(?:/bot|[\s"'`=:>\\,|(]{1,12}(?:bot)?)[0-9]{5,16}""",
    ),
    token(
        "stripe-key",
        "sk_live_ sk_test_ rk_live_ rk_test_ sk_prod_ rk_prod_ whsec_",
        16,
        _ALNUM,
    ),
    token("square-token", "sq0atp- sq0csp- sq0idp-", 22),
    token("square-token", "EAAA", 56, before=WORD + "-+/"),
    token("shopify-token", "shpat_ shpca_ shppa_ shpss_ shptka_", 32, _ANYHEX),
    token("plaid-token", "access-production- access-development- access-sandbox-", 32, "[0-9a-f-]"),
    token("flutterwave-key", "FLWSECK-", 12, "[A-Za-z0-9-]"),
    token("flutterwave-key", "FLWSECK_TEST-", 12, "[A-Za-z0-9-]"),
    token("braintree-token", "access_token$production$ access_token$sandbox$", 32, r"[\w$]"),
    token("shippo-token", "shippo_live_ shippo_test_", 40, _ANYHEX),
    token("easypost-key", "EZAK EZTK", 54, _ALNUM),
    token("facebook-token", "EAAC EAAM", 100, _ALNUM, before=WORD + "-+/"),
    Rule(
        "sendgrid-key",
        ("SG.",),
        r"SG\.(?:[\w-]{16,32}\.[\w-]{20}|[\w=.-]{60})",
        r"[\w=.-]",
        before=ALNUM,
        check=scrambled,
    ),
    token("mailgun-key", "key-", 32, _HEX),
    token("brevo-key", "xkeysib- xsmtpsib-", 64, "[0-9A-Za-z-]"),
    token("resend-key", "re_", 30, r"\w", check=no_name),
    Rule("twilio-key", ("SK",), f"SK{_HEX}{{32}}", _HEX, before=WORD + "-+/"),
    token("hubspot-token", "pat-na1- pat-eu1- pat-na2-", 32, "[0-9a-f-]"),
    token("airtable-token", "pat", 60, r"[A-Za-z0-9.]", check=no_name),
    token("linear-key", "lin_api_ lin_oauth_", 32, _ALNUM),
    token("notion-token", "ntn_", 40, _ALNUM),
    token("notion-token", "secret_", 43, _ALNUM, check=no_name),
    token("figma-token", "figd_ figu_", 36),
    token("typeform-token", "tfp_", 40, r"[\w.=-]"),
    token("contentful-token", "CFPAT-", 40),
    token("netlify-token", "nfp_ nfc_ nfo_", 36, _ALNUM),
    token("dropbox-token", "sl.", 120, r"[\w=-]", before=WORD + "-."),
    token("adobe-secret", "p8e-", 32, _ALNUM),
    token("grafana-token", "glsa_ glc_", 32, r"[\w+/=]"),
    token("grafana-token", "eyJrIjoi", 60, _B64, before=WORD + "-+/"),
    token("sentry-token", "sntrys_ sntryu_", 60, r"[\w+/=]"),
    token("new-relic-key", "NRAK- NRII- NRRA- NRBR- NRJS- NRIQ-", 18, "[A-Za-z0-9-]"),
    token("dynatrace-token", "dt0c01. dt0s01. dt0s16.", 60, _DOTTED),
    Rule("okta-token", ("SSWS ",), r"[\w-]{40}", r"[\w-]", lead="SSWS "),
    token("duffel-token", "duffel_test_ duffel_live_", 40, r"[\w=-]"),
    token("razorpay-key", "rzp_live_ rzp_test_", 14, _ALNUM),
)

VENDORS: tuple[Rule, ...] = (*_CLOUD, *_CODE, *_MODELS, *_SERVICES)
"""Who issued it stands in the secret or right before it."""
