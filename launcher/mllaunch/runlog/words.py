"""Short, friendly, unambiguous words that run names are made of. None appears twice."""

from __future__ import annotations

ADJECTIVES = """
able agile airy alert amber ample apt arid avid aware azure balmy basic bold brave brief bright
brisk broad bronze busy calm candid careful casual cheery chief civil clean clear clever cloudy
coastal cool coral cosmic cosy crisp curious daily daring deep deft eager early earnest easy elegant
epic equal exact fair famous fancy fast fearless fine firm fleet fluent fond frank free fresh frosty
gentle giant glad golden good grand great green handy happy hardy hearty helpful honest humble ideal
ivory jade jolly joyful just keen kind large lasting lavish light lively local loyal lucid lucky
lunar magic major mellow merry mighty mild misty modern modest neat nimble noble northern novel open
orange patient placid plain polar polite prime proud pure quick quiet ready regal robust rosy round
royal rustic sage sandy serene sharp shiny silent silver simple sincere sleek smart smooth snowy
social solar solid sound spry stable steady sturdy sunny super swift tidy tranquil trusty upbeat
vast velvet violet vital vivid warm wise witty young zesty
""".split()  # noqa: SIM905 (a page of quotes and commas reads worse)

ANIMALS = """
adder akita alpaca anchovy ant antelope badger bantam barbel bat beagle bear beaver bee beetle bison
boar bobcat buffalo bunny camel canary caracal caribou carp cat cheetah chinook cicada civet clam
cobra collie condor corgi cougar coyote crab crane cricket crow curlew deer dingo dolphin donkey
dove dragonfly duck eagle egret eland elk emu ermine falcon ferret finch firefly flamingo fox frog
gannet gazelle gecko gerbil gibbon giraffe gnu goat goose gopher grouse gull guppy hamster hare
harrier hawk hedgehog heron herring hornet horse hound husky ibex ibis iguana impala jackal jaguar
jay kestrel kite kiwi koala krill lark lemming lemur leopard lion lizard llama lobster lynx macaw
magpie mallard mammoth manatee marlin marmot marten meerkat merlin mink minnow mole moose moth mouse
mule newt ocelot octopus orca oriole osprey otter owl oyster panda panther parrot pelican penguin
perch pigeon pika plover pony puffin puma quail rabbit raccoon raven robin salmon seal shrew skylark
sloth snail sparrow squid stork swallow swan tapir tern tiger toad toucan trout tuna turtle viper
vole walrus weasel whale wolf wombat wren yak zebra
""".split()  # noqa: SIM905 (a page of quotes and commas reads worse)
