//! Words that do not make a title by themselves.

use std::sync::OnceLock;

use rustc_hash::FxHashSet;

/// Words that stay small inside titles.
const SMALL: &str =
    "a an the of and or in on at to for from by with vs as is it s la le el de du des und der die";

/// Everyday words of conversations about films, our own list: function words, small talk, genres, family and
/// time words, first names. A one-word title among them needs a year or quotes.
const ORDINARY: &str = "
able accident admission advice afternoon apartment arms art assignment awful awkward
beach bet birth blues bone bones bottom bridge broken bucket building business butterfly camp campaign candy captain
castle cave cell certain champion charade checking chicken choice circle circus clear client closet coach coast code
cold comfort coming company connection control conversation corner counter courage court cousin craft crew crow crown
cult curse cutting deck defense deep den depart desert desire desk diary dish dive divide double dragon dust eagle
edge education eight election engine entire equal event everest evidence exam exchange expert extra fact fair faith
fantasia farm fate fault favor favourite fence field fifth figure file flag flood floor fog foot forest fortune fox
friendly frozen future garden gate general ghostly glass goal grace graduate grass grave ground group guard guest
guide gun happiness hell hidden hill history hole honey honor hospital host hunting imagine impossible indian inner
insider intern internship invisible invitation island journey joker judge jungle jury key kingdom kitchen knife
lake lamp land language leader league leap letter letters lies lights limit lion lonely loop mail mansion map march
mark master match meeting member memory message middle millions miracle mission mist mountain mouth mule nation
nature neck negotiator news notice number nurse object ocean official orange order package paper parade parent park
party passage passenger passion patient pattern pilot pirate platform pool post presence present president pressure
prestige priest prisoner producer professional promise proposal public quest rabbit raise range reader record
remains report republic request reunion road rock roommate rose royal ruins sacrifice salt sand score search
seeker sentence september service seventh shadow shark sheep shell shift shock shore shot siege silver sixth
skin slave smell snake soldier sorcerer spirit square stage stand statement station stone street strike subject
suit sun surf surface survive swan sword system table tale target taxi tea temple terminal tiger tower trade
traffic trap treasure treatment trial tribe truck tunnel university unit uninvited vanishing victory village
virus visit visitor volcano vow warning wave whale whip wing wolf wood wrestler zoo
a about above across action actor actors actress adult adults after again against age ago ah air airport alice
alien aliens alive all almost alone along already alright also always am amazing american amy an and animal
animals animated animation anna annie another any anybody anymore anyone anything anyway are aren area around art
as ask at audience aunt awake away awesome baby back bad bank baseball basic basketball battle be bear bears
beautiful beauty because become bed beer been before beginning behind being believe beloved ben best better
between big biggest bill bird birds birthday bit black blended blood blow blue boat bob body book books bored
boring born boss both bound box boy boys brave break bride bring brother brothers brought brown bug but buy by bye
cake call called came can cannot car care carol cars cartoon case cast cat catch cats caught celebrate chance
change channel charlie chef chicago child children chosen christmas church city class classic clean clever click
close closer clown club clue clueless cold college color come comedies comedy comes coming computer contact cook
cool cop cops could couldn country couple course cowboy cowboys crash crazy creature creep creepy crime criminal
cry cube cut cute d dad daddy dance dancing danger dare dark date daughter dave david day days dead deal dear
death deep definitely detective devil did didn die died different dinner dinosaur dinosaurs director disaster disney
do doctor documentary does doesn dog dogs doll dolls don done dont door dope doubt down dr drama dramas dream
dreamer dreams drive driver drop drug drugs dude dumb during each early earth ed eddie eight either elf else emma
empire end ending enemy english enjoy enjoyed enough epic escape even evening ever every everybody everyone
everything evil excellent exciting eye eyes f face fall fallen fame families family famous fan fans fantastic
fantasy far fast father favorite fear feel feeling feels few fight fighter fighting film films final finally find
fine finish fire first five flick flicks flight flock flow fly focus follow following food football for forever
forget forgotten forward found four free freedom french fresh friday friend friends from front full fun funny g
game games gang gangster gangsters gave genre get gets getting ghost ghosts giant gift gifted girl girls give glad
glory go god goes going gold gone gonna good goodbye goodnight got gotta grand grandma great green grown guess guy
guys h had hair half halloween hand hands happen happened happening happy hard has hasn hate have haven having he
heads hear heard heart heat heaven heist hello help her here hero heroes herself hey hi high hilarious him his
hit ho holiday holidays hollywood home hook hope horror horrors horse hospital hot hotel hour hours house how huge
human humor hunger hungry hunt hunter hurt husband i ice idea identity if ill im in indeed independence innocence
inside intense interesting interstate into is island isn it its itself jack jackie james jane jaw job jobs joe john
joy julie jump june just justice k keep kevin kid kids kill killer killers kind king kings kiss knew know knowing
known la lady land last late later laugh law learn least leave left legend less let liar life light like liked
likes line list listen little live lived lives living ll lo lol london long look looking looks lord lost lot lots
love loved lovely lover lovers loves loving luck lucky lucy m machine mad made mafia magic make makes man many
marriage married mars martial mask matt matter max may maybe me mean means men mermaid met mexico might mike milk
mind mine minute minutes mirror miss missing mom moment mommy moms money monster monsters month months mood moon
more morning most mother mouse movie movies moving mr mrs much mud murder music musical must my myself mystery name
names near need needs neighbor neighbors network never new news next nice night nightmare nine no nobody none nope
north not nothing now o obsessed of off office oh ok okay old older on once one ones only open or orphan other
others our ours out outside over own page pain paradise parents part parts party past paul pay peace people perfect
person pets pi piano picked pieces pink pixels place plan plane planes planet play played player please plot plus
point police popcorn popular possible powder power precious premonition pretty prey pride prime prince princess
prison private probably project prom proof psycho purge push queen question questions quick quiet quite quote race
radio rain ran rampage random rated ray re read ready real really reason rebel rebound rec recently recommend red
release remember rent repeat rescue rest return revenge revolution rich ride right ring rings rise risk river road
robot robots rock role roll romance romantic romcom room roots round rubber rudy rule rules run running rush s sad
safe said sam same santa saturday save saw say says scandal scare scared scary school science scifi screen sea
season seat second secret secretary see seem seems seen self selfless send sense series serious set seven sex she
ship shoot shooter short should show showed shows shut sick side sigh sight sign signs silence silent silly simple
since sing sinister sister sisters sit site six skip sky sleep sleeper slow small smart smile smoke sniper snow so
social society soft solo some somebody someone something sometimes son song songs soon sorry sort soul sound sounds
source south space speak special speed spider split spoiler sport sports spring spy stalker star stars start
started state stay step steve stick still stop stories storm story strange stranger street strong student stuff
stupid style such suggest suggestion suggestions summer sunday sunshine super superhero superheroes sure surprise
suspense sweet switch t take taken takes taking talk talking tall tangled tank tap taste taxi teacher team tears
teen television tell ten terrible test than thank thanks that thats the theater their them themselves then there
these they thief thing things think third thirteen this those though thought thoughts thousand three thriller
thrillers through thunder ticket till time times tiny title to today together told tom tomorrow tommy tonight too
took top total touch tough town toy toys tracks train trash tree tried trip trouble true truth try trying turn tv
twelve twice twilight twins twist twisted two type types u ugly uncle under understand unknown until up upon us use
used using usually v vacation vampire vampires ve version very video view violence voice w wait waiting walk wall
want wanted wants war wars was wasn watch watched watching water way we wedding week weekend weird welcome well
went were weren west western westerns what whatever wheels when where which while white who whole why wife wild
will willow wilson win wind window winner winter wish wishes witch with within without witness woman women won
wonder wonderful word words work working works world worse worst worth would wouldn wow write writer wrong x y ya
yea yeah year years yep yes yesterday yet york you young your yours yourself zero zombie zombies
";

fn set(
    words: &'static str,
    cell: &'static OnceLock<FxHashSet<&'static str>>,
) -> &'static FxHashSet<&'static str> {
    cell.get_or_init(|| words.split_whitespace().collect())
}

/// Whether a word stays small inside a title.
pub(super) fn small(word: &str) -> bool {
    static CELL: OnceLock<FxHashSet<&'static str>> = OnceLock::new();
    set(SMALL, &CELL).contains(word)
}

/// Whether a title of these tokens reads as ordinary text: all words are everyday ones, or it is one token of
/// at most three letters or only digits.
pub(super) fn ordinary<'a>(tokens: impl Iterator<Item = &'a str>) -> bool {
    static CELL: OnceLock<FxHashSet<&'static str>> = OnceLock::new();
    let words = set(ORDINARY, &CELL);
    let tokens: Vec<&str> = tokens.collect();
    let odd = |t: &str| t.len() <= 3 || t.bytes().all(|b| b.is_ascii_digit());
    tokens.iter().all(|t| words.contains(t) || small(t) || (tokens.len() == 1 && odd(t)))
}
