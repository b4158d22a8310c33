"""The words of each region, in lower case; a plural counts as its singular, of several the longest counts."""

from utils.regions import OTHERS

# Weights: 9 decides over everything (where a catheter's tip lies), 4 and 5 decide over a region's
# own anatomy and findings, which have 3; 2 leans to a region, 1 only breaks a tie.
LEXICON: dict[str, dict[int, str]] = {
    "lung": {
        4: """air space, airspace, bronchovascular, costophrenic, flattened, flattening, hemothoraces,
            hemothorax, hydropneumothorax, hyperexpanded, hyperinflated, interstitial edema, lung apex, lung
            base, lung parenchyma, lung volume, pleural effusion, pneumothoraces, pneumothorax, pulmonary
            edema, tuberculous""",
        3: """adenocarcinoma, aerated, aeration, air trapping, airway, alveolar, alveoli, apical, asbestos,
            asbestosis, aspergilloma, asthma, atelectases, atelectasis, atelectatic, azygos fissure, azygos
            lobe, b line, basal, basilar, biapical, bibasal, bibasilar, bleb, blunted, blunting, bronchial,
            bronchiectasis, bronchiolitis, bronchitic, bronchitis, bronchogram, bulla, bullae, bullous,
            cavitary, cavitation, cavity, cephalization, chylothorax, congestion, consolidation, copd,
            cuffing, cyst, decortication, edema, effusion, emphysema, emphysematous, empyema, expanded,
            fibrosis, fibrothorax, fibrotic, fissure, granuloma, ground glass, groundglass, hemithorax,
            histoplasmosis, honeycomb, honeycombing, hyperaerated, hyperexpansion, hyperinflation,
            hyperlucency, hypoaerated, hypoaeration, hypoinflated, hypoinflation, hypoventilation,
            hypoventilatory, infiltrate, infiltration, inflated, inspiration, inspiratory, interlobular,
            interstitial, interstitium, kerley, lingula, lingular, lobar, lobe, lobectomy, loculated, lung,
            lymphangitic, meniscus, mesothelioma, metastases, metastasis, micronodule, midlung, mucous
            plugging, mucus plugging, nipple shadow, nodularity, nodule, oligemia, opacification, opacity,
            overexpanded, overinflated, overinflation, peribronchial, perihilar, pleura, pleural, pleurodesis,
            pneumatocele, pneumoconiosis, pneumonectomy, pneumonia, pneumonic, pneumonitis, pulmonary,
            reexpanded, reexpansion, reticular, reticulation, reticulonodular, retrosternal, scarring, septal,
            silicosis, subpleural, subpulmonic, subsegmental, tb, thoracentesis, tracheobronchial, tree in
            bud, tuberculosis, underaerated, underinflated, underinflation, vascular congestion, vascular
            crowding, vascular redistribution, vascularity, vasculature, volume loss""",
        2: """abscess, apex, apices, aspiration, azygos, base, bronchi, bronchogenic, bronchus, chest clear,
            chest is clear, collapse, collapsed, congested, crowding, density, engorgement, fluid,
            granulomatous, haziness, hazy, hemidiaphragm flattening, hyperlucent, infection, infectious,
            lucent, markings, mass, metastatic, miliary, nodular, obstructive, parenchyma, parenchymal,
            patchy, plaque, retrocardiac, sarcoidosis, scar, segmental, spiculated, streaky, sulci, sulcus,
            ventilation, volume, zone""",
        1: """acute disease, calcified, carcinoma, cardiopulmonary, clear, confluent, focal, lesion, lucency,
            malignancy, neoplasm, noncalcified, recess, thickening, tumor""",
    },
    "heart": {
        4: """cardiac contour, cardiac shadow, cardiac silhouette, cardiac size, cardiomegaly, coronary, heart
            shadow, heart size""",
        3: """annulus, aortic valve, atrial, biventricular, cardiac, cardiomyopathy, cardiophrenic,
            cardiothoracic, cardiothymic, dextrocardia, epicardial fat, heart, left atrium, mitral, mitral
            annulus, myocardial, myocardium, pericardial, pericardial effusion, pericarditis, pericardium,
            valve, valvular, ventricle, ventricular""",
        2: "chamber, enlarged, enlargement, size",
    },
    "mediastinal": {
        9: "mediastinal clip, mediastinal surgical clip, superior vena cava, svc",
        5: "hilar, lymph",
        4: """aorta, aortic, aortic arch, aortic knob, central vascular, central vasculature, hilar contour,
            lymph node, mediastinal, mediastinal contour, mediastinum, paratracheal, thoracic aorta""",
        3: """adenopathy, aneurysm, aneurysmal, aorticopulmonary, aortopulmonary, ap window, azygoesophageal,
            azygos vein, azygous vein, brachiocephalic, carina, carotid, dissection, esophageal, esophagus,
            goiter, goitre, great vessel, hila, hilum, hilus, innominate, lymphadenopathy, mediastinitis,
            nodal, node, paramediastinal, pneumomediastinum, pretracheal, pseudoaneurysm, retrotracheal,
            subcarinal, subclavian artery, substernal, superior mediastinum, thymic, thymoma, thymus, thyroid,
            trachea, tracheal, vascular pedicle, vena cava""",
        2: """arteriosclerosis, arteriosclerotic, atheroma, atheromatous, atherosclerosis, atherosclerotic,
            ectasia, ectatic, knob, lymphoma, suprahilar, tortuosity, tortuous, uncoiled, uncoiling, unfolded,
            unfolding, vascular""",
        1: "arch, contour, midline",
    },
    "bone": {
        4: """bone, bony, clavicle, degenerative, dextroscoliosis, endplate, fracture, fractured, humeral,
            humerus, kyphosis, kyphotic, levoscoliosis, osseous, osseus, osteopenia, osteopenic, osteophyte,
            rib, scoliosis, scoliotic, shoulder, skeletal, skeleton, spinal, spine, spondylosis, sternotomy,
            sternotomy wire, syndesmophyte, vertebra, vertebrae, vertebral""",
        3: """ac joint, acetabulum, acromioclavicular, acromion, alignment, amputation, ankle, ankylosing,
            ankylosis, arthritic, arthritis, arthropathy, arthroplasty, arthrosis, avulsion, blastic, bone
            island, calcaneus, callus, carpal, cervical, clavicular, coccyx, comminuted, compression,
            compression deformity, coracoid, cortical, costal cartilage, costicartilage, costochondral,
            costovertebral, curvature, deformity, degenerate, degeneration, demineralization, demineralized,
            destructive, dextroconvex, dextrocurvature, disc, dish, disk, dislocated, dislocation, elbow,
            enchondroma, exostosis, facet, femoral head, femoral neck, femur, fibula, fibular, fixation,
            fusion, gibbus, glenohumeral, glenoid, hemangioma, hemivertebra, hip, hyperostosis, hypertrophic,
            intervertebral, joint effusion, joint space, knee, kyphoplasty, kyphoscoliosis, laminectomy,
            levoconvex, levocurvature, listhesis, lordosis, lumbar, lumbosacral, lytic, malalignment,
            malleoli, malleolus, malunion, manubrium, metacarpal, metatarsal, mortise, myeloma, nonunion,
            olecranon, orthopedic, ossification, osteoarthritic, osteoarthritis, osteoblastic, osteochondroma,
            osteolysis, osteolytic, osteomyelitis, osteonecrosis, osteoporosis, osteoporotic, osteotomy,
            paget, patella, pectus, pedicle, periosteal, phalanx, radial head, radius, retrolisthesis, rod,
            rotator, sacral, sacroiliac, sacrum, scapula, scapulae, schmorl, sclerosis, sclerotic, screw,
            spinous, spondylolisthesis, spondylolysis, spur, spurring, sternal, sternoclavicular, sternum,
            subchondral, subluxation, suprapatellar, thoracolumbar, thoracotomy, tibia, tibial, ulna, ulnar,
            vertebroplasty, wedging, wrist""",
        2: """anterior, bridging, cement, height, joint, mineralization, plate, posttraumatic, spondylitic,
            spondylotic, thorax, wedge""",
        1: "acute abnormality, age, healed, thoracic",
    },
    OTHERS: {
        5: "cardiac xxxx generator, femoral artery, popliteal artery, splenic granuloma, xxxx cardiac xxxx",
        4: """abdomen, abdominal, aicd, are excluded, axilla, axillary, balloon pump, bowel, breast, cardiac
            device, cardiac monitor, catheter, chest wall, cholecystectomy, cholelithiasis, clip, colon,
            colonic, defibrillator, diaphragm, diaphragmatic, dobbhoff, electrode, endotracheal, enteric,
            epigastrium, evaluation of, eventration, foreign body, free air, gallbladder, gallstone, gastric,
            gastroesophageal, gastrostomy, gynecomastia, habitus, hemidiaphragm, hepatic, hepatomegaly,
            hernia, hickman, icd, intraperitoneal, is excluded, jewelry, lap band, lead, limited evaluation,
            limits evaluation, liver, mastectomy, mediport, monitor, nephrolithiasis, neurostimulator, nipple,
            pacemaker, pacer, pancreas, pancreatic, picc, piercing, pigtail, pneumoperitoneum, port,
            portacath, quadrant, soft tissue, spleen, splenic, splenomegaly, stomach, subdiaphragmatic,
            surgical clip, swan ganz, thoracostomy, tip, tracheostomy, tube, ventriculoperitoneal""",
        3: """artifact, artifactual, ascites, atrium, bullet, button, bypass, cabg, calculi, calculus,
            cavoatrial, chin, coil, device, dialysis, epigastric, epiglottis, feeding tube, filter, gas,
            generator, hardware, ileus, implant, jugular, kidney, laryngeal, larynx, limited, line, lipoma,
            loop, lordotic, nasogastric, neck, necklace, obese, obesity, pellet, peritoneal, projectile,
            prosthesis, recorder, renal, shrapnel, shunt, skin, staple, stent, stimulator, subcutaneous,
            surgical, suture, tips, wire""",
        2: """ct, drain, external, film, image, metallic, motion, mri, overpenetrated, patient, penetration,
            portable, projection, radiograph, rotated, rotation, scan, supine, technique, telephone,
            ultrasound, underpenetrated, upright, view""",
        1: "comparison, correlation, exam, examination, recommended",
    },
}

# Terms that the gold split keeps with another region where they are named beside it:
# term -> (the regions named beside it, the region that takes it).
COMPANY: dict[str, tuple[set[str], str]] = {
    "vascularity": ({"heart", "mediastinal"}, "mediastinal"),
    "soft tissue": ({"bone"}, "bone"),
    "cardiac xxxx": ({OTHERS}, OTHERS),
    "right atri": ({OTHERS}, OTHERS),
    "right ventric": ({OTHERS}, OTHERS),
    "cardiac vein": ({OTHERS}, OTHERS),
}
