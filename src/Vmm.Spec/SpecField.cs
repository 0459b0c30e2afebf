namespace Vmm.Spec;

/// <summary>What the value of a field is.</summary>
internal enum SpecKind
{
    Text,

    /// <summary>A text that names a file of the host; a relative one is relative to the spec file.</summary>
    Path,
    Bool,
    Number,
    Size,
    Set,
    Percent,

    /// <summary>A part of the memory: a size or a percentage.</summary>
    Portion,
    Word,
    Object,
    List,
}

/// <summary>
/// One field of the spec. Reader, schema, bounds, the entry that an edit writes, the command line's form and the reference come from it.
/// Made by <see cref="FieldsOf{T}"/>, whose typed accessors are here without their types.
/// </summary>
internal sealed record SpecField(string Name, SpecKind Kind, string Help)
{
    private const int LongestPath = 4096; // PATH_MAX

    private readonly Lazy<string[]> _words = new(() => []);

    public long Min { get; init; }

    /// <summary>
    /// Of a number the largest value, of a text the most characters (0: as many as a path has), of a list the most entries.
    /// </summary>
    public long Max { get; init; }

    /// <summary>The most characters of a text.</summary>
    public long MaxLength => Max > 0 ? Max : LongestPath;

    /// <summary>The words of a <see cref="SpecKind.Word"/>.</summary>
    public string[] Words => _words.Value;

    /// <summary>Where the words come from; asked once, when they are needed.</summary>
    public Func<string[]> WordSource
    {
        init => _words = new Lazy<string[]>(value);
    }

    public bool Required { get; init; }

    /// <summary>The field that says the same in another form: one of the two is given.</summary>
    public string? InsteadOf { get; init; }

    /// <summary>The fields of which one is there in place of this one, which is required otherwise.</summary>
    public IReadOnlyList<string> Unless { get; init; } = [];

    /// <summary>A further form of what other fields say: read for ever, not written.</summary>
    public bool OtherForm { get; init; }

    /// <summary>Its name in an option of the command line (<c>--disk path,queues=2</c>); null when it has none there.</summary>
    public string? Option { get; init; }

    /// <summary>Fields of an object, or of the members of a list of objects.</summary>
    public SpecField[] Fields { get; init; } = [];

    /// <summary>
    /// Of a list: its members are objects of several types, told apart by their field <c>kind</c>; asked for when they are needed.
    /// </summary>
    public Func<SpecField[]>? Kinds { get; init; }

    /// <summary>An object that may be given as <c>true</c> (all its defaults) or <c>false</c> (none).</summary>
    public bool Switch { get; init; }

    /// <summary>
    /// The field may be given as an object instead, with these fields of the same owner; the first of them is what the field alone says.
    /// </summary>
    public SpecField[] Parts { get; init; } = [];

    /// <summary>Of a path: a word that is no file's name; a file of that name has <c>./</c> before it.</summary>
    public string? Keyword { get; init; }

    /// <summary>The members of a list that are not objects.</summary>
    public SpecField? Item { get; init; }

    /// <summary>The value in its owner; null when it is left out.</summary>
    public Func<object, object?> Get { get; init; } = _ => null;

    /// <summary>The owner with a value.</summary>
    public Func<object, object, object> Set { get; init; } = (owner, _) => owner;

    /// <summary>An object with all its defaults.</summary>
    public Func<object>? Create { get; init; }

    /// <summary>Fills in defaults that depend on which fields were given.</summary>
    public Func<object, IReadOnlySet<string>, object>? Complete { get; init; }
}
