"""List the planner's rules of thumb in one table."""

from typing import Final

# ---- the size of a page

# The sizes of a page, from the largest.
PAGE_SIZES: Final = (1000, 500, 250, 100)
# After so many good pages of one size the next size is tried.
GOOD_PAGES_TO_GROW: Final = 20

# ---- what is believed of counts

# Costs are counted in quarters of a request, for SIDs spread over cells weigh fractions.
COST_PARTS: Final = 4
# Counts are sums of floats: 25,000 attempts must not become 26 pages.
SLACK: Final = 1e-6
# Empty cells get a tiny weight, so a window may cross them if that costs no page.
TRACE: Final = 1e-6
# The database's counts may be wrong by this factor, either way.
DOUBT: Final = 3.0
# Exact counts that agree with the database's lower the doubt to this factor.
CONFIRMED: Final = 1.3
# A smaller count proves nothing about the database's.
ENOUGH: Final = 100
# Part of an exact count may be wrong by this factor, for a count says nothing of its inside.
DOUBT_OF_SHAPE: Final = 2.0
# Where nothing is known, the guess from the rest may be wrong by this factor.
DOUBT_OF_GAPS: Final = 10.0
# Shares of time and of SIDs as near to each other tell nothing apart.
TOO_ALIKE: Final = 0.05
# Attempts are never taken to lie exactly evenly, or exactly where SIDs wait.
LEAST_GATHERED: Final = 0.01

# ---- which Summaries to ask

# Fewer SIDs are fetched sooner than a question helps.
WORTH_ASKING: Final = 4
# So many questions need no reason in what the plan costs.
FREE_ASKS: Final = 2
# Further questions may cost this share of the plan.
ASK_SHARE: Final = 0.02
# They may cost this share while halved counts show crowds where none were thought.
SEARCH_SHARE: Final = 0.05
# They may cost this share of what the plan saves against single fetches.
ASK_SAVED: Final = 0.01
# A wrong count may cost the plan this share before a question is asked.
TOLERANCE: Final = 0.05
# A count is looked into when it matters to more than this share of the plan's cost.
LEAST_STAKE: Final = 0.01
# This share of a count's SIDs is a crowd, and worth a question of its own.
CROWD: Final = 0.05
# Half a count confirms what was thought if it is off by no more than this share.
SMOOTH: Final = 0.3

# ---- when a sweep pays

# An unsure sweep must find so many times its pages: to break even is not worth the risk.
LEAST_GAIN: Final = 1.05
# After so many lost requests a sweep must pay even if its count is wrong.
MOST_BEHIND: Final = 2
# A sweep that takes so many times its pages, and one more, was not as expected.
LONGER: Final = 1.25
# Fewer finds do not tell how thinly SIDs are sown.
FEW_FINDS: Final = 3
# So many SIDs of unknown age, expected on the pages read, tell how long the list is.
TELLING: Final = 20
# What the database says of one window is wrong by no more than this factor.
WRONG_BY: Final = 3
# This share of the finds hoped for may be spent on pages that show too few.
IN_VAIN: Final = 0.1
# A page with so many finds pays for the next.
PAYING: Final = 2
